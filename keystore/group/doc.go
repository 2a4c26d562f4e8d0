// Package group serves keys that are in several tokens, the members of a group,
// as if they were in one: requests are spread over the members that are well, fail
// over from one to the next and are hedged against one that hangs.
//
// A group trusts no member: before a version of a key is used there, the member
// proves that it has the same key as the others, and one that has another is
// quarantined. And it obeys each member: a key that is disabled, withdrawn or
// destroyed in one of them is refused by the whole group.
//
// A group of one token is that token: nothing is proven, looked at or remembered.
package group
