package verify

import (
	"slices"
	"strings"
)

// requestChecks are about what every operation has in common: the request
// body as JSON, and requestMetadata.
func requestChecks() []Check {
	var checks []Check
	for _, op := range operations() {
		checks = append(checks, bodyChecks(op)...)
		checks = append(checks, requiredChecks(op)...)
		checks = append(checks, tolerantChecks(op)...)
	}
	return checks
}

// bodyChecks send, correctly signed, what is not the JSON object expected.
func bodyChecks(op operation) []Check {
	id := string(op) + ".body."
	return []Check{
		refuses(id+"empty", secErrors, "an empty body is ValidationException", Must, op, invalid, raw("")),
		refuses(id+"not-json", secErrors, "a body that is not JSON is ValidationException", Must, op, invalid, raw("verify")),
		refuses(id+"truncated", secErrors, "truncated JSON is ValidationException", Must, op, invalid, raw(`{"requestMetadata":{"kmsOperation":"verify"`)),
		refuses(id+"array", secErrors, "a JSON array is ValidationException", Must, op, invalid, raw("[]")),
		refuses(id+"string", secErrors, "a JSON string is ValidationException", Must, op, invalid, raw(`"verify"`)),
	}
}

// requiredChecks leave out what the operation requires of requestMetadata.
func requiredChecks(op operation) []Check {
	id := string(op) + ".requires."
	checks := []Check{
		refuses(id+"requestMetadata", op.section(), "no requestMetadata is ValidationException", Must, op, invalid, drop("requestMetadata")),
		refuses(id+"requestMetadata.members", op.section(), "an empty requestMetadata is ValidationException", Must, op, invalid, set("requestMetadata", object{})),
		refuses(id+"requestMetadata.object", op.section(), "a requestMetadata that is a string is ValidationException", Must, op, invalid, set("requestMetadata", "verify")),
	}
	for _, member := range op.required() {
		checks = append(checks, refuses(id+member, op.section(), "no "+member+" is ValidationException",
			Must, op, invalid, drop("requestMetadata."+member)))
	}
	return checks
}

// required lists the members of requestMetadata that are not optional.
func (op operation) required() []string {
	var names []string
	for name := range op.requestMetadata() {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// tolerantChecks send values that a proxy must not reject.
func tolerantChecks(op operation) []Check {
	id := string(op) + ".accepts."
	const metadataOf = "requestMetadata."
	checks := []Check{
		accepts(id+"operation", op.section(), "a kmsOperation that does not exist yet is accepted", Must, op, set(metadataOf+"kmsOperation", "BulkVerify")),
		accepts(id+"request-id", op.section(), "a kmsRequestId that is no UUID is accepted", Must, op, set(metadataOf+"kmsRequestId", "not a UUID: {1/2}")),
		accepts(id+"metadata-member", secMetadata, "a member of requestMetadata that does not exist yet is accepted", Must, op, set(metadataOf+"kmsVerify", object{"a": []int{1}})),
		accepts(id+"member", secMetadata, "another unknown member of the request is accepted", Should, op, set("hyokVerify", true)),
	}
	if op == health {
		return checks
	}
	longest := "arn:aws:iam::123456789012:role/" + strings.Repeat("a", 2048)
	return append(checks,
		accepts(id+"principal-internal", op.section(), "AWS Internal as awsPrincipalArn is accepted", Must, op, set(metadataOf+"awsPrincipalArn", "AWS Internal")),
		accepts(id+"principal-service", op.section(), "a service principal as awsPrincipalArn is accepted", Must, op, set(metadataOf+"awsPrincipalArn", "ec2.amazonaws.com")),
		accepts(id+"long-principal", secOperations, "an awsPrincipalArn of 2048 characters is accepted", Must, op, set(metadataOf+"awsPrincipalArn", longest[:2048])),
		accepts(id+"long-key-arn", secOperations, "a kmsKeyArn of 2048 characters is accepted", Must, op, set(metadataOf+"kmsKeyArn", (sampleKeyARN + longest)[:2048])),
		accepts(id+"optional", op.section(), "awsSourceVpc, awsSourceVpce, kmsKeyArn and kmsViaService are accepted", Must, op,
			set(metadataOf+"awsSourceVpc", "vpc-1234567890abcdef0"), set(metadataOf+"awsSourceVpce", "vpce-1234567890abcdef0"),
			set(metadataOf+"kmsKeyArn", sampleKeyARN), set(metadataOf+"kmsViaService", "ebs")),
	)
}
