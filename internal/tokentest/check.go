package tokentest

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>

typedef int (*checker)(const char *text, char *why);

static checker load(const char *path) {
	void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	checker c = NULL;
	if (library)
		*(void **)&c = dlsym(library, "faulty_check");
	return c;
}

static int check(checker c, const char *text, char *why) { return c(text, why); }
*/
import "C"

import (
	"fmt"
	"unsafe"
)

// A checker tells whether the module understands a text as its control file. It
// is the module's own parser, in a copy that nothing else uses.
type checker struct{ function C.checker }

func loadChecker(path string) (checker, error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	c := checker{C.load(name)}
	if c.function == nil {
		return c, fmt.Errorf("%s has no faulty_check", path)
	}
	return c, nil
}

// Check returns what is wrong with a control file.
func (c checker) Check(text string) error {
	var why [256]C.char
	t := C.CString(text)
	defer C.free(unsafe.Pointer(t))
	if C.check(c.function, t, &why[0]) == 0 {
		return fmt.Errorf("the faulty module does not understand its control file: %s:\n%s", C.GoString(&why[0]), text)
	}
	return nil
}
