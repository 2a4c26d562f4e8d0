// Package kmsapi serves any [engine.API] by the wire protocol of AWS KMS: AWS
// JSON 1.1 over HTTP, signed by Signature Version 4.
//
// It owns the way from bytes to the SDK's input types and back, who may sign,
// and the bodies and status codes of errors. It knows nothing of what the
// operations do. sts:GetCallerIdentity is served on the same port, because
// people and Terraform ask it before anything else.
//
// # Requests
//
// A request is POST / with X-Amz-Target: TrentService.<Operation> and
// Content-Type: application/x-amz-json-1.1, at most [MaxBody] bytes long. The
// Region is that of the signature's credential scope. As with AWS, members that
// are not known are ignored, null means absent, and what is behind the point of
// an integer is cut off. Two members of the same name are refused. Presigned
// URLs are not served.
//
// # Answers
//
// Absent pointers, lists, maps and enums are not sent; booleans that are no
// pointers always are. Times are seconds since 1970 to the millisecond. An
// operation whose output AWS's model leaves out answers with an empty body.
//
// Errors of the client have status 400 and errors of the server 500, as with
// AWS JSON everywhere, but for DependencyTimeoutException (503) and for what
// never reaches an operation: another path (404), another method (405), too
// large a body (413).
package kmsapi
