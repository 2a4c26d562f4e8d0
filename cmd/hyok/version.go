package main

import "runtime/debug"

// version is set by the linker in releases.
var version string

// versionString returns the version of this binary.
func versionString() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(devel)"
}
