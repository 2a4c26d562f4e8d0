package kmstest

import (
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/aws-sdk-go-v2/service/kms/types"
)

// lifecycle disables, enables, schedules and cancels. What each state allows is
// tested beside the table of states.
func (s *suite) lifecycle() {
	id := s.newKey()
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})
	opens := func(code string) {
		s.Helper()
		in := &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}
		if code == "" {
			ok(s, s.Decrypt, in)
			return
		}
		refused(s, s.Decrypt, in, code)
	}
	ok(s, s.DisableKey, &kms.DisableKeyInput{KeyId: id})
	if m := s.describe(id); m.KeyState != types.KeyStateDisabled || m.Enabled {
		s.Errorf("disabled: %+v", *m)
	}
	opens("DisabledException")
	ok(s, s.EnableKey, &kms.EnableKeyInput{KeyId: id})
	opens("")

	ok(s, s.UpdateKeyDescription, &kms.UpdateKeyDescriptionInput{KeyId: id, Description: aws.String("changed")})
	if got := *s.describe(id).Description; got != "changed" {
		s.Errorf("description %q", got)
	}

	for _, window := range []*int32{aws.Int32(7), nil} {
		days := int32(30)
		if window != nil {
			days = *window
		}
		out := ok(s, s.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: window})
		s.checkMembers(out, "DeletionDate KeyId KeyState PendingWindowInDays")
		until := time.Until(*out.DeletionDate)
		if want := time.Duration(days) * 24 * time.Hour; *out.KeyId != arn(id) || out.KeyState != types.KeyStatePendingDeletion ||
			*out.PendingWindowInDays != days || (until-want).Abs() > time.Minute {
			s.Errorf("ScheduleKeyDeletion answered %+v", out)
		}
		m := s.describe(id)
		s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CurrentKeyMaterialId DeletionDate")
		if m.KeyState != types.KeyStatePendingDeletion || m.Enabled || !m.DeletionDate.Equal(*out.DeletionDate) {
			s.Errorf("pending deletion: %+v", *m)
		}
		opens("KMSInvalidStateException")
		refused(s, s.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: id}, "KMSInvalidStateException")
		if out := ok(s, s.CancelKeyDeletion, &kms.CancelKeyDeletionInput{KeyId: id}); *out.KeyId != arn(id) {
			s.Errorf("CancelKeyDeletion answered %+v", out)
		}
		if got := s.state(id); got != types.KeyStateDisabled {
			s.Errorf("after the cancellation the key is %s", got)
		}
		ok(s, s.EnableKey, &kms.EnableKeyInput{KeyId: id})
		opens("")
	}
	refused(s, s.CancelKeyDeletion, &kms.CancelKeyDeletionInput{KeyId: id}, "KMSInvalidStateException")
}

// rotation is automatic, whose time no test waits for, and on demand.
func (s *suite) rotation() {
	id := s.newKey()
	status := func(keyID *string) *kms.GetKeyRotationStatusOutput {
		s.Helper()
		return ok(s, s.GetKeyRotationStatus, &kms.GetKeyRotationStatusInput{KeyId: keyID})
	}
	for _, off := range []*string{id, s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify), s.key(types.KeySpecHmac256, types.KeyUsageTypeGenerateVerifyMac)} {
		out := status(off)
		s.checkMembers(out, "KeyId")
		if out.KeyRotationEnabled {
			s.Errorf("rotation of a new key: %+v", out)
		}
	}
	for _, days := range []*int32{nil, aws.Int32(90)} {
		want := int32(365)
		if days != nil {
			want = *days
		}
		ok(s, s.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: id, RotationPeriodInDays: days})
		out := status(id)
		s.checkMembers(out, "KeyId NextRotationDate RotationPeriodInDays")
		next := time.Until(*out.NextRotationDate) - time.Duration(want)*24*time.Hour
		if !out.KeyRotationEnabled || *out.RotationPeriodInDays != want || next.Abs() > time.Minute {
			s.Errorf("rotation status %+v", out)
		}
	}
	ok(s, s.DisableKeyRotation, &kms.DisableKeyRotationInput{KeyId: id})
	if status(id).KeyRotationEnabled {
		s.Error("rotation is still enabled")
	}
	signer := s.key(types.KeySpecEccNistP256, types.KeyUsageTypeSignVerify)
	refused(s, s.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: signer}, "UnsupportedOperationException")
	refused(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: signer}, "UnsupportedOperationException")
	s.rotationOnDemand(id)
}

// rotationOnDemand keeps old ciphertext readable.
func (s *suite) rotationOnDemand(id *string) {
	s.Helper()
	const rotations = 3
	var blobs [][]byte
	var materials []string
	note := func() {
		blobs = append(blobs, ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")}).CiphertextBlob)
		materials = append(materials, *s.describe(id).CurrentKeyMaterialId)
	}
	note()
	for range rotations {
		ok(s, s.RotateKeyOnDemand, &kms.RotateKeyOnDemandInput{KeyId: id})
		note()
	}
	for i, blob := range blobs {
		if out := ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: blob}); *out.KeyMaterialId != materials[i] || string(out.Plaintext) != "p" {
			s.Errorf("ciphertext of material %d decrypts to %q by %s, want %s", i, out.Plaintext, *out.KeyMaterialId, materials[i])
		}
	}
	list := ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id}).Rotations
	if len(list) != rotations {
		s.Fatalf("%d rotations, want %d", len(list), rotations)
	}
	for i, r := range list {
		s.checkMembers(&r, "KeyId KeyMaterialId KeyMaterialState RotationDate RotationType")
		state := types.KeyMaterialStateNonCurrent
		if i == rotations-1 {
			state = types.KeyMaterialStateCurrent
		}
		if *r.KeyMaterialId != materials[i+1] || r.RotationType != types.RotationTypeOnDemand || r.KeyMaterialState != state {
			s.Errorf("rotation %d: %+v", i, r)
		}
	}
	all := ok(s, s.ListKeyRotations, &kms.ListKeyRotationsInput{KeyId: id, IncludeKeyMaterial: types.IncludeKeyMaterialAllKeyMaterial}).Rotations
	if len(all) != rotations+1 || *all[0].KeyMaterialId != materials[0] || all[0].RotationDate != nil {
		s.Errorf("all materials: %+v", all)
	}
}

// multiRegion replicates a key, whose ciphertext opens in both Regions, makes the
// replica the primary key, and deletes both.
func (s *suite) multiRegion() {
	m := s.create(&kms.CreateKeyInput{MultiRegion: aws.Bool(true), Description: aws.String("primary")})
	id, there := m.KeyId, s.in(Account, OtherRegion)
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})
	out := ok(s, s.ReplicateKey, &kms.ReplicateKeyInput{
		KeyId: id, ReplicaRegion: aws.String(OtherRegion), Description: aws.String("replica"), Tags: []types.Tag{{TagKey: aws.String("a"), TagValue: aws.String("b")}},
	})
	s.checkMembers(out, "ReplicaKeyMetadata ReplicaPolicy ReplicaTags")
	replica := out.ReplicaKeyMetadata
	s.checkMembers(replica, common+" CustomerMasterKeySpec EncryptionAlgorithms MultiRegionConfiguration")
	if *replica.KeyId != *id || *replica.Description != "replica" || replica.KeyState != types.KeyStateCreating || replica.Enabled ||
		replica.MultiRegionConfiguration.MultiRegionKeyType != types.MultiRegionKeyTypeReplica {
		s.Errorf("replica %+v", *replica)
	}
	there.wait("the replica is enabled", func() bool { return there.state(id) == types.KeyStateEnabled })
	if out := ok(there, there.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob}); string(out.Plaintext) != "p" {
		s.Errorf("the replica decrypts to %q", out.Plaintext)
	}
	if c := s.describe(id).MultiRegionConfiguration; len(c.ReplicaKeys) != 1 || *c.ReplicaKeys[0].Region != OtherRegion {
		s.Errorf("the primary key has the replicas %+v", c.ReplicaKeys)
	}
	refused(s, s.ReplicateKey, &kms.ReplicateKeyInput{KeyId: id, ReplicaRegion: aws.String(OtherRegion)}, "AlreadyExistsException")
	refused(s, s.ReplicateKey, &kms.ReplicateKeyInput{KeyId: s.symmetric(), ReplicaRegion: aws.String(OtherRegion)}, "UnsupportedOperationException")
	refused(there, there.EnableKeyRotation, &kms.EnableKeyRotationInput{KeyId: id}, "UnsupportedOperationException")

	ok(s, s.UpdatePrimaryRegion, &kms.UpdatePrimaryRegionInput{KeyId: id, PrimaryRegion: aws.String(OtherRegion)})
	for _, c := range []*suite{s, there} {
		c.wait("the key is enabled", func() bool { return c.state(id) == types.KeyStateEnabled })
	}
	if c := there.describe(id).MultiRegionConfiguration; c.MultiRegionKeyType != types.MultiRegionKeyTypePrimary || *c.PrimaryKey.Region != OtherRegion || *c.ReplicaKeys[0].Region != Region {
		s.Errorf("after the change of the primary Region: %+v", *c)
	}
	pending := ok(there, there.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: id, PendingWindowInDays: aws.Int32(8)})
	s.checkMembers(pending, "KeyId KeyState PendingWindowInDays")
	m = there.describe(id)
	s.checkMembers(m, common+" CustomerMasterKeySpec EncryptionAlgorithms CurrentKeyMaterialId MultiRegionConfiguration PendingDeletionWindowInDays")
	if pending.KeyState != types.KeyStatePendingReplicaDeletion || m.KeyState != types.KeyStatePendingReplicaDeletion || *m.PendingDeletionWindowInDays != 8 {
		s.Errorf("with a replica: %+v, %+v", pending, *m)
	}
	ok(s, s.ScheduleKeyDeletion, &kms.ScheduleKeyDeletionInput{KeyId: id})
	if got := s.state(id); got != types.KeyStatePendingDeletion {
		s.Errorf("the replica is %s", got)
	}
}

// lastUsage tells what a key was used for last, only successes.
func (s *suite) lastUsage() {
	id := s.newKey()
	usage := func() *kms.GetKeyLastUsageOutput {
		s.Helper()
		return ok(s, s.GetKeyLastUsage, &kms.GetKeyLastUsageInput{KeyId: id})
	}
	out := usage()
	s.checkMembers(out, "KeyCreationDate KeyId KeyLastUsage TrackingStartDate")
	s.checkMembers(out.KeyLastUsage, "")
	sealed := ok(s, s.Encrypt, &kms.EncryptInput{KeyId: id, Plaintext: []byte("p")})
	if out := usage(); out.KeyLastUsage.Operation != types.KeyLastUsageTrackingOperationEncrypt || time.Since(*out.KeyLastUsage.Timestamp) > time.Minute {
		s.Errorf("last usage %+v", *out.KeyLastUsage)
	}
	ok(s, s.Decrypt, &kms.DecryptInput{CiphertextBlob: sealed.CiphertextBlob})
	refused(s, s.GenerateDataKey, &kms.GenerateDataKeyInput{KeyId: id}, "ValidationException")
	if out := usage(); out.KeyLastUsage.Operation != types.KeyLastUsageTrackingOperationDecrypt {
		s.Errorf("last usage %+v", *out.KeyLastUsage)
	}
}
