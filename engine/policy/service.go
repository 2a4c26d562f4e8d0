package policy

import (
	"slices"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Service is a service of AWS that has a managed key in each account and Region.
type Service struct {
	Name string // as in alias/aws/NAME

	id       string // of the policy
	title    string // in the policy
	protects string // what it protects by the key
	via      string // the name by which it calls KMS; empty: Name
	use      []string
	grants   bool // it works by grants, which the account may revoke
	// describes: its service principal may look at the key directly.
	describes bool
	// anyRegion: data keys may be asked for through the service in other Regions.
	anyRegion bool
}

// Services returns those services in the order of their names.
func Services() []Service {
	const encrypt, decrypt, reEncrypt, dataKey = "kms:Encrypt", "kms:Decrypt", "kms:ReEncrypt*", "kms:GenerateDataKey*"
	const grant, grants, describe = "kms:CreateGrant", "kms:ListGrants", "kms:DescribeKey"
	plain := []string{encrypt, decrypt, reEncrypt, dataKey, describe}
	granting := []string{encrypt, decrypt, reEncrypt, dataKey, grant, describe}
	listing := []string{encrypt, decrypt, reEncrypt, dataKey, grant, grants, describe}
	return []Service{
		{Name: "acm", id: "auto-acm-3", title: "ACM", protects: "ACM private keys", use: granting, grants: true},
		{Name: "dynamodb", id: "auto-dynamodb-1", title: "Amazon DynamoDB", protects: "DynamoDB data", use: granting, grants: true, describes: true},
		{Name: "ebs", id: "auto-ebs-2", title: "EBS", protects: "EBS volumes", via: "ec2", use: granting, grants: true},
		{Name: "elasticfilesystem", id: "auto-elasticfilesystem-1", title: "EFS", protects: "EFS filesystems", use: granting, grants: true},
		{Name: "es", id: "auto-es-2", title: "OpenSearch Service", protects: "Amazon OpenSearch Service (successor to Amazon Elasticsearch Service) data", use: granting, grants: true, describes: true},
		{Name: "glue", id: "auto-glue-1", title: "Glue", protects: "Glue data", use: plain},
		{Name: "kafka", id: "auto-kafka-1", title: "Kafka", protects: "Kafka data", use: listing, grants: true},
		{Name: "kinesis", id: "auto-kinesis-1", title: "Kinesis", protects: "Kinesis data", use: plain},
		{Name: "kinesisvideo", id: "auto-kinesisvideo-1", title: "Kinesis Video Streams", protects: "Kinesis Video Streams data", use: plain},
		{Name: "lambda", id: "auto-awslambda", title: "AWS Lambda", protects: "Lambda functions", use: granting, grants: true},
		{Name: "rds", id: "auto-rds-2", title: "RDS", protects: "RDS database volumes", use: listing, grants: true},
		{Name: "redshift", id: "auto-redshift-1", title: "Redshift", protects: "Redshift data", use: granting, grants: true},
		{Name: "s3", id: "auto-s3-2", title: "S3", protects: "S3 objects", use: plain},
		{
			Name: "secretsmanager", id: "auto-secretsmanager-2", title: "AWS Secrets Manager", protects: "Secrets Manager data",
			use: []string{encrypt, decrypt, reEncrypt, grant, describe}, grants: true, anyRegion: true,
		},
		{Name: "sns", id: "auto-sns-1", title: "SNS", protects: "SNS data", use: []string{decrypt, dataKey, grant, grants, describe}, grants: true},
		{Name: "sqs", id: "auto-sqs-1", title: "SQS", protects: "SQS messages", use: []string{decrypt, dataKey, grant, describe}, grants: true},
		{Name: "ssm", id: "auto-ssm-1", title: "SSM", protects: "SSM parameters", use: plain},
		{Name: "xray", id: "auto-xray-1", title: "X-Ray", protects: "X-Ray data", use: plain},
	}
}

// ServiceNamed returns the service of a name.
func ServiceNamed(name string) (s Service, ok bool) {
	all := Services()
	i := slices.IndexFunc(all, func(s Service) bool { return s.Name == name })
	if i < 0 {
		return s, false
	}
	return all[i], true
}

// Description is that of the service's managed keys.
func (s Service) Description() string {
	return "Default key that protects my " + s.protects + " when no other key is defined"
}

// managedPolicy and managedStatement are policies of managed keys as AWS writes
// them.
type (
	managedPolicy struct {
		Version   string
		ID        string `json:"Id"`
		Statement []managedStatement
	}
	managedStatement struct {
		Sid       string
		Effect    string
		Principal map[string]string
		Action    []string
		Resource  string
		Condition map[string]map[string]string `json:",omitempty"`
	}
)

// Policy returns the key policy of the service's managed key in an account and
// Region.
func (s Service) Policy(account, region string) string {
	p := managedPolicy{Version: "2012-10-17", ID: s.id, Statement: s.through(account, region)}
	const toTheAccount = "Allow direct access to key metadata to the account"
	root := map[string]string{"AWS": "arn:aws:iam::" + account + ":root"}
	p.Statement = append(p.Statement, allow(toTheAccount, root, s.metadata(), nil))
	if s.describes {
		itself := map[string]string{"Service": s.Name + ".amazonaws.com"}
		p.Statement = append(p.Statement, allow("Allow "+s.title+" to describe the key directly", itself, looking(), nil))
	}
	document, _ := json.Marshal(p, json.Deterministic(true), jsontext.WithIndent("  ")) // nothing in it can fail
	return string(document)
}

// through returns the statements that let whoever may use the service use the key
// through it.
func (s Service) through(account, region string) []managedStatement {
	sid := "Allow access through " + s.title + " for all principals in the account that are authorized to use " + s.title
	everyone := map[string]string{"AWS": "*"}
	via := s.via
	if via == "" {
		via = s.Name
	}
	statements := []managedStatement{allow(sid, everyone, s.use, map[string]map[string]string{
		"StringEquals": {"kms:CallerAccount": account, "kms:ViaService": via + "." + region + ".amazonaws.com"},
	})}
	if s.anyRegion {
		statements = append(statements, allow(sid, everyone, []string{"kms:GenerateDataKey*"}, map[string]map[string]string{
			"StringEquals": {"kms:CallerAccount": account}, "StringLike": {"kms:ViaService": via + ".*.amazonaws.com"},
		}))
	}
	return statements
}

func allow(sid string, who map[string]string, actions []string, condition map[string]map[string]string) managedStatement {
	return managedStatement{Sid: sid, Effect: "Allow", Principal: who, Action: actions, Resource: "*", Condition: condition}
}

func looking() []string { return []string{"kms:Describe*", "kms:Get*", "kms:List*"} }

// metadata returns what the account may do directly.
func (s Service) metadata() []string {
	if s.grants {
		return append(looking(), "kms:RevokeGrant")
	}
	return looking()
}

// Permits reports whether any statement of the policy is for an operation, such as
// "DescribeKey", whoever asks.
func (s Service) Permits(operation string) bool {
	actions := append(s.metadata(), s.use...)
	if s.anyRegion {
		actions = append(actions, "kms:GenerateDataKey*")
	}
	return slices.ContainsFunc(actions, func(pattern string) bool { return likeFold(pattern, "kms:"+operation) }) ||
		operation == "RetireGrant" && s.grants // which the grant permits
}
