// Package sigv4 signs and verifies HTTP requests by AWS Signature Version 4.
package sigv4
