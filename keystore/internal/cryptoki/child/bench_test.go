package child_test

import (
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/hyok-kms/hyok/internal/tokentest"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki"
	"github.com/hyok-kms/hyok/keystore/internal/cryptoki/child"
)

// BenchmarkEncrypt is what an encryption takes in this process and in another one,
// by callers that work side by side.
func BenchmarkEncrypt(b *testing.B) {
	path := tokentest.Module(b)
	modules := map[string]func() cryptoki.Module{
		"thread": func() cryptoki.Module {
			m, err := cryptoki.Load(path, "")
			must(b, err)
			return m
		},
		"process": func() cryptoki.Module { return child.New(config(path, commandServe)) },
	}
	for _, name := range []string{"thread", "process"} {
		for _, callers := range []int{1, 2, 4, 16} {
			b.Run(fmt.Sprintf("%s/%d", name, callers), func(b *testing.B) {
				m := modules[name]()
				must(b, m.Initialize())
				before := cpuTime()
				encrypt(b, m, callers)
				must(b, m.Finalize())
				m.Destroy()
				b.ReportMetric(float64(cpuTime()-before)/float64(b.N), "cpu-ns/op")
			})
		}
	}
}

func encrypt(b *testing.B, m cryptoki.Module, callers int) {
	slot := slotOf(b, m, newToken(b, m))
	first := login(b, m, slot)
	var wg sync.WaitGroup
	sessions := []cryptoki.Session{first}
	keys := []cryptoki.Object{aesKey(b, m, first)}
	for range callers - 1 {
		s := open(b, m, slot)
		sessions, keys = append(sessions, s), append(keys, aesKey(b, m, s))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range callers {
		wg.Go(func() {
			text := make([]byte, 32)
			for range b.N / callers {
				_, _, err := m.Encrypt(sessions[i], gcm(), keys[i], text)
				if err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
}

// cpuTime is that of this process and of children that have ended.
func cpuTime() (all int64) {
	for _, who := range []int{syscall.RUSAGE_SELF, syscall.RUSAGE_CHILDREN} {
		var u syscall.Rusage
		_ = syscall.Getrusage(who, &u) // fails only on a wrong argument
		all += u.Utime.Nano() + u.Stime.Nano()
	}
	return all
}
