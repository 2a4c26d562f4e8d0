package drill_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hyok-kms/hyok/xks"
)

// isolations runs a drill with the module in the proxy's process and in one of its
// own.
func isolations(t *testing.T, drill func(t *testing.T, lines string)) {
	t.Run("isolation none", func(t *testing.T) { drill(t, "") })
	t.Run("isolation process", func(t *testing.T) { drill(t, ", isolation: process") })
}

// The only token hangs under load: each request is answered, by the error that the
// specification has for it, and all is well afterwards.
func TestHang(t *testing.T) {
	isolations(t, func(t *testing.T, lines string) {
		s := newSite(t, 1, lines)
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		var all []sample
		var load sync.WaitGroup
		begin := time.Now()
		load.Go(func() { all = s.load(ctx, pick(100, 500)) })
		time.Sleep(pick(300*time.Millisecond, 3*time.Second))
		before, heapBefore := threads(t), heap()
		s.modules[0].Set(t, "hang any")
		hung := time.Since(begin)
		most := 0
		for end := time.Now().Add(pick(time.Second, time.Minute)); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
			most = max(most, threads(t))
		}
		heapAfter := heap()
		s.modules[0].Set(t)
		over := time.Since(begin)
		back := eventually(t, "it serves", func() bool { return s.encrypt(t.Context()) == nil })
		time.Sleep(pick(100*time.Millisecond, 2*time.Second))
		stop()
		load.Wait()
		refused := map[xks.ErrorName]int{}
		late := 0
		for _, a := range all {
			if name := named(t, a.err); name != "" {
				refused[name]++
			}
			if a.took > 250*time.Millisecond {
				late++
			}
		}
		for name := range refused {
			if name != xks.DependencyTimeoutException && name != xks.ThrottlingException {
				t.Errorf("%d requests were answered by %s", refused[name], name)
			}
		}
		if refused[xks.DependencyTimeoutException] == 0 {
			t.Error("nobody noticed that the token hung")
		}
		during := times(all, func(a sample) bool { return a.sent > hung && a.sent < over })
		t.Logf("hung for %v at %d requests/s: %d answers, %d later than 250 ms, p50 %v, p99.9 %v, slowest %v; refused %v; back after %v",
			(over - hung).Round(time.Millisecond), pick(100, 500), len(all), late, quantile(during, .5), quantile(during, .999), quantile(during, 1), refused, back.Round(time.Millisecond))
		t.Logf("threads %d before, at most %d; heap %d KiB before, %d KiB at the end of it", before, most, heapBefore>>10, heapAfter>>10)
	})
}

// One of two tokens dies under load, and comes back.
func TestFailover(t *testing.T) {
	for _, fault := range []string{"hang any", "fail any 0x32"} {
		isolations(t, func(t *testing.T, lines string) {
			s := newSite(t, 2, lines)
			ctx, stop := context.WithCancel(t.Context())
			defer stop()
			var all []sample
			var load sync.WaitGroup
			load.Go(func() { all = s.load(ctx, pick(100, 500)) })
			begin := time.Now()
			time.Sleep(pick(300*time.Millisecond, 5*time.Second))
			s.modules[0].Set(t, fault)
			time.Sleep(pick(300*time.Millisecond, 10*time.Second))
			known := time.Since(begin)
			time.Sleep(pick(300*time.Millisecond, 10*time.Second))
			over := time.Since(begin)
			s.modules[0].Set(t)
			time.Sleep(pick(300*time.Millisecond, 5*time.Second))
			stop()
			load.Wait()
			failed, sent, lost := 0, 0, 0
			for _, a := range all {
				bad := named(t, a.err) != ""
				if bad {
					failed++
				}
				if a.sent > known && a.sent < over {
					sent++
					if bad {
						lost++
					}
				}
			}
			// Without failover it would be half of them.
			if lost*4 > sent {
				t.Errorf("%d of %d requests failed though one token was well, and the other known to be sick", lost, sent)
			}
			t.Logf("%q on one of two tokens: %d of %d requests failed (%.3f %%), p50 %v, p99 %v, p99.9 %v, slowest %v", fault, failed, len(all),
				100*float64(failed)/float64(len(all)), quantile(times(all, every), .5), quantile(times(all, every), .99), quantile(times(all, every), .999), quantile(times(all, every), 1))
		})
	}
}

// A key is destroyed or disabled by another program: the time until it is refused,
// on one token and on a group.
func TestRevocation(t *testing.T) {
	for _, tokens := range []int{1, 2} {
		for _, how := range []string{"destroyed", "disabled"} {
			t.Run(fmt.Sprintf("%s in one of %d", how, tokens), func(t *testing.T) {
				s := newSite(t, tokens, "")
				last := s.others[tokens-1]
				var took []time.Duration
				for range pick(2, 100) {
					// In use enough to have a session copy.
					for range 30 {
						if err := s.encrypt(t.Context()); err != nil {
							t.Fatal(err)
						}
					}
					want := xks.KeyNotFoundException
					if how == "disabled" {
						want = xks.InvalidStateException
						if err := last.SetEnabled(t.Context(), "k", false); err != nil {
							t.Fatal(err)
						}
					} else if err := last.DestroyKey(t.Context(), "k", 0); err != nil {
						t.Fatal(err)
					}
					took = append(took, eventually(t, "it is refused", func() bool { return named(t, s.encrypt(t.Context())) == want }))
					for range 10 {
						if name := named(t, s.encrypt(t.Context())); name != want {
							t.Fatalf("after it was refused once: %q", name)
						}
					}
					if how == "disabled" {
						if err := last.SetEnabled(t.Context(), "k", true); err != nil {
							t.Fatal(err)
						}
					} else {
						s.put(last)
					}
					if err := s.proxy.Refresh(t.Context()); err != nil {
						t.Fatal(err)
					}
					eventually(t, "it is served again", func() bool { return s.encrypt(t.Context()) == nil })
				}
				t.Logf("%d trials: p50 %v, p90 %v, longest %v", len(took), quantile(took, .5).Round(time.Millisecond), quantile(took, .9).Round(time.Millisecond), quantile(took, 1).Round(time.Millisecond))
			})
		}
	}
}

// Each return value at each function that it can come from, on the only token: how
// long it takes from the end of the fault to the first good answer.
func TestRecovery(t *testing.T) {
	codes := map[string]int{
		"SESSION_HANDLE_INVALID": 0xb3, "SESSION_CLOSED": 0xb0, "USER_NOT_LOGGED_IN": 0x101, "OBJECT_HANDLE_INVALID": 0x82,
		"KEY_HANDLE_INVALID": 0x60, "DEVICE_REMOVED": 0x32, "DEVICE_ERROR": 0x30, "DEVICE_MEMORY": 0x31, "TOKEN_NOT_PRESENT": 0xe0,
		"SLOT_ID_INVALID": 0x03, "GENERAL_ERROR": 0x05, "FUNCTION_FAILED": 0x06, "HOST_MEMORY": 0x02, "CRYPTOKI_NOT_INITIALIZED": 0x190,
	}
	functions := pick([]string{"C_EncryptInit", "any"}, []string{
		"C_GetSlotList", "C_GetTokenInfo", "C_OpenSession", "C_CloseSession", "C_GetSessionInfo", "C_Login", "C_FindObjectsInit", "C_FindObjects",
		"C_FindObjectsFinal", "C_GetAttributeValue", "C_GenerateRandom", "C_EncryptInit", "C_Encrypt", "C_CopyObject", "C_DestroyObject", "any",
	})
	isolations(t, func(t *testing.T, lines string) {
		s := newSite(t, 1, lines)
		var took []time.Duration
		slowest := ""
		for name, code := range codes {
			for _, function := range functions {
				s.modules[0].Set(t, fmt.Sprintf("fail %s %#x", function, code))
				for range 8 {
					if name := named(t, s.encrypt(t.Context())); name == xks.KeyNotFoundException || name == xks.InvalidCiphertextException {
						t.Errorf("a fault of the token was taken for %s", name)
					}
				}
				s.modules[0].Set(t)
				d := eventually(t, "it serves", func() bool { return s.encrypt(t.Context()) == nil })
				if took = append(took, d); d == quantile(took, 1) {
					slowest = name + " at " + function
				}
			}
		}
		t.Logf("%d faults: p50 %v, p99 %v, longest %v (%s)", len(took), quantile(took, .5), quantile(took, .99), quantile(took, 1), slowest)
	})
}

// Four times what the token can do is offered: what is accepted is answered as fast
// as ever, and the rest is refused at once.
func TestOverload(t *testing.T) {
	for _, call := range pick([]int{40}, []int{4, 10, 20}) { // milliseconds
		t.Run(fmt.Sprintf("calls of %d ms", call), func(t *testing.T) {
			isolations(t, func(t *testing.T, lines string) { overload(t, lines, call) })
		})
	}
}

func overload(t *testing.T, lines string, call int) {
	const sessions = 4
	s := newSite(t, 1, fmt.Sprintf("%s, profile: cloudhsm, sessions: %d", lines, sessions), "iv written-back", fmt.Sprintf("delay C_Encrypt %d", call))
	measure := pick(300*time.Millisecond, 10*time.Second)
	capacity := float64(len(times(s.closedLoop(measure, 2*sessions), accepted))) / measure.Seconds()
	var usual, offered []sample
	if full() {
		usual = s.loadFor(measure, int(.8*capacity))
		offered = s.loadFor(measure, int(4*capacity))
	} else { // how fast the machine is does not matter then
		usual, offered = s.closedLoop(measure, sessions), s.closedLoop(measure, connections)
	}
	refused, good := s.judgeOverload(offered), times(offered, accepted)
	if len(refused) == 0 || len(good) == 0 {
		t.Errorf("%d accepted, %d refused", len(good), len(refused))
	}
	normal, loaded := quantile(times(usual, accepted), .99), quantile(good, .99)
	t.Logf("capacity %.0f a second; at 80 %% of it p99 %v, %.1f %% refused; at 4 times of it goodput %.0f %%, p99 of what was accepted %v (%.1f times), p50 and p99 of a refusal %v and %v",
		capacity, normal, 100-100*float64(len(times(usual, accepted)))/float64(len(usual)), 100*float64(len(good))/measure.Seconds()/capacity, loaded, float64(loaded)/float64(normal), quantile(refused, .5), quantile(refused, .99))
}

// judgeOverload returns how long refusals took. Nothing but those and answers is
// expected, but for a few that ran into their deadline.
func (s *site) judgeOverload(offered []sample) (refused []time.Duration) {
	others := map[xks.ErrorName]int{}
	for _, a := range offered {
		switch name := named(s.t, a.err); name {
		case "":
		case xks.ThrottlingException:
			refused = append(refused, a.took)
		default:
			others[name]++
		}
	}
	late := others[xks.DependencyTimeoutException]
	if delete(others, xks.DependencyTimeoutException); len(others) != 0 || late*10 > len(offered) {
		s.t.Errorf("%d requests ran into their deadline, others were answered by %v", late, others)
	}
	return refused
}

func accepted(s sample) bool { return s.err == nil }

// closedLoop has callers that each wait for an answer before the next request.
func (s *site) closedLoop(d time.Duration, callers int) []sample {
	ctx, cancel := context.WithTimeout(s.t.Context(), d)
	defer cancel()
	each := make([][]sample, callers)
	var running sync.WaitGroup
	begin := time.Now()
	for i := range callers {
		running.Go(func() {
			for ctx.Err() == nil {
				sent := time.Now()
				err := s.encrypt(context.Background())
				each[i] = append(each[i], sample{sent.Sub(begin), time.Since(sent), err})
			}
		})
	}
	running.Wait()
	return slices.Concat(each...)
}
