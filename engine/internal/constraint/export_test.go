package constraint

import "reflect"

// Members returns the names of the members that the table deals with.
func Members() map[string]bool {
	names := map[string]bool{}
	for name := range members() {
		names[name] = true
	}
	return names
}

// Orders returns the values of each enum whose order is laid down, by the name of
// its member.
func Orders() map[string][]string {
	orders := map[string][]string{}
	for name, r := range members() {
		if r.order != nil {
			orders[name] = r.order
		}
	}
	return orders
}

// Enums returns the names of the members that are enums, or lists of them.
func Enums() map[string]bool {
	names := map[string]bool{}
	for name, r := range members() {
		names[name] = r.enum || r.each != nil && r.each.enum
	}
	return names
}

// Structures returns the types whose required members the table tells.
func Structures() map[reflect.Type]bool {
	types := map[reflect.Type]bool{}
	for _, s := range structures() {
		types[reflect.TypeOf(s.value)] = true
	}
	return types
}
