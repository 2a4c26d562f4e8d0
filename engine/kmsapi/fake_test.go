package kmsapi

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kms"
	"github.com/aws/smithy-go/middleware"

	"github.com/hyok-kms/hyok/engine"
)

const (
	testRegion  = "eu-central-1"
	testAccount = "111122223333"
	testARN     = "arn:aws:iam::111122223333:user/alice"
)

// alice and bob are in different accounts; bob has a session token.
func alice() Identity {
	return Identity{AccessKeyID: "test", SecretAccessKey: "secret of alice", Account: testAccount, PrincipalARN: testARN, UserID: "AIDAALICE"}
}

func bob() Identity {
	return Identity{AccessKeyID: "ASIABOB", SecretAccessKey: "of bob", SessionToken: "token of bob", Account: "444455556666"}
}

// method stands for all operations: it is called with the operation's input,
// and returns its output.
type method func(ctx context.Context, in any) (any, error)

// newAPI makes an [engine.API] whose operations all call do. It is a client of
// the SDK whose first step never reaches the second, so that it has all
// methods and, as real ones do, wraps errors in the operation's.
func newAPI(do method) engine.API {
	step := middleware.InitializeMiddlewareFunc("fake", func(ctx context.Context, in middleware.InitializeInput, _ middleware.InitializeHandler) (
		out middleware.InitializeOutput, metadata middleware.Metadata, err error,
	) {
		out.Result, err = do(ctx, in.Parameters)
		return out, metadata, err
	})
	return kms.New(kms.Options{Region: testRegion, APIOptions: []func(*middleware.Stack) error{
		func(stack *middleware.Stack) error { return stack.Initialize.Add(step, middleware.Before) },
	}})
}

// testConfig serves do to alice and bob.
func testConfig(do method) Config {
	return Config{
		Identities: []Identity{alice(), bob()},
		Client:     func(string, engine.Caller) engine.API { return newAPI(do) },
	}
}

func newTestHandler(tb testing.TB, config Config) *Handler {
	tb.Helper()
	h, err := NewHandler(config)
	if err != nil {
		tb.Fatal(err)
	}
	return h
}

// serveTLS serves the handler over TLS, by HTTP/2 if told so.
func serveTLS(tb testing.TB, h http.Handler, http2 bool) *httptest.Server {
	tb.Helper()
	server := httptest.NewUnstartedServer(h)
	server.EnableHTTP2 = http2
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	server.StartTLS()
	tb.Cleanup(server.Close)
	return server
}

// newClient makes the SDK's client of the server.
func newClient(server *httptest.Server, id Identity) *kms.Client {
	return kms.New(kms.Options{
		BaseEndpoint: aws.String(server.URL), Region: testRegion, HTTPClient: server.Client(), RetryMaxAttempts: 1,
		Credentials: credentials.NewStaticCredentialsProvider(id.AccessKeyID, id.SecretAccessKey, id.SessionToken),
	})
}

// invoke calls the method of the name.
func invoke(ctx context.Context, api engine.API, name string, in any) (any, error) {
	results := reflect.ValueOf(api).MethodByName(name).Call([]reflect.Value{reflect.ValueOf(ctx), reflect.ValueOf(in)})
	err, _ := results[1].Interface().(error)
	return results[0].Interface(), err
}

// fill sets all members of what v points to, or holds, to random values other
// than zero.
func fill(random *rand.Rand, v reflect.Value) {
	if v.Type() == reflect.TypeFor[time.Time]() {
		// Eighths of a second: of other fractions the SDK's client loses some
		// milliseconds, also with AWS.
		v.Set(reflect.ValueOf(time.UnixMilli(125 * random.Int64N(3e10)).UTC()))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(random, v.Elem())
	case reflect.String:
		v.SetString(fmt.Sprintf("a%x/\"\\é\u2028\U0001f511<&>\n", random.Uint64()))
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int32:
		v.SetInt(int64(random.Int32() - 1<<30))
	case reflect.Uint8:
		v.SetUint(uint64(random.UintN(256)))
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1+random.IntN(4), 8))
		for i := range v.Len() {
			fill(random, v.Index(i))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range 1 + random.IntN(3) {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(random, key)
			fill(random, value)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for field := range fields(v.Type()) {
			fill(random, v.Field(field.Index[0]))
		}
	default:
		panic("no random " + v.Type().String())
	}
}

// filled makes a structure of the type with the values of a seed.
func filled(t reflect.Type, seed uint64) any {
	v := reflect.New(t)
	fill(rand.New(rand.NewPCG(seed, 1)), v.Elem())
	return v.Interface()
}

// withoutMetadata removes what the client adds to an output.
func withoutMetadata(out any) any {
	reflect.ValueOf(out).Elem().FieldByName("ResultMetadata").SetZero()
	return out
}

var errTest = errors.New("canary of an error that is not the SDK's")
