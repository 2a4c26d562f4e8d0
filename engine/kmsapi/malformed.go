package kmsapi

import "encoding/json"

// Malformed is the body of the answer to what is no proper HTTP request, and its
// media type, for a listener that answers such by itself. message is printable
// ASCII.
func Malformed(message string) (mediaType string, body []byte) {
	body, _ = json.Marshal(struct { // strings always can be marshalled
		Type    string `json:"__type"`
		Message string `json:"message"`
	}{"SerializationException", message})
	return jsonType, body
}
