package config

import (
	"syscall"
	"time"
)

// changeTime is when the file or what is known of it was last changed.
func changeTime(stat *syscall.Stat_t) time.Time { return time.Unix(stat.Ctim.Unix()) }
