package child

import (
	"encoding/binary"
	"io"
)

// line is one end of a pair of sockets, on which one side asks and the other one
// replies. It belongs to one goroutine at a time.
type line struct {
	conn io.ReadWriteCloser
	in   []byte // what was received
	out  []byte // what is to be sent, from begin on
}

// Buffers of a line. One that had to grow beyond the larger size is not kept.
const (
	usualBuffer = 4 << 10
	mostBuffer  = 64 << 10
)

// begin begins a message, which is to be appended to l.out.
func (l *line) begin() {
	if l.out == nil {
		l.out = make([]byte, 0, usualBuffer)
	}
	clear(l.out)
	l.out = l.out[:lengthSize]
}

// send sends the message.
func (l *line) send() error {
	binary.BigEndian.PutUint32(l.out, uint32(len(l.out)-lengthSize))
	_, err := l.conn.Write(l.out)
	return err
}

// receive returns the next message, which is valid until wipe. The other side waits
// for an answer to it, so nothing can come after it.
func (l *line) receive() ([]byte, error) {
	if l.in == nil {
		l.in = make([]byte, 0, usualBuffer)
	}
	if err := l.fill(lengthSize); err != nil {
		return nil, err
	}
	size := int(binary.BigEndian.Uint32(l.in))
	if size > maxMessage {
		return nil, errMalformed
	}
	if err := l.fill(lengthSize + size); err != nil {
		return nil, err
	}
	if len(l.in) > lengthSize+size {
		return nil, errMalformed
	}
	return l.in[lengthSize:], nil
}

// fill receives until there are n bytes, or more.
func (l *line) fill(n int) error {
	if n > cap(l.in) {
		larger := append(make([]byte, 0, n), l.in...)
		clear(l.in)
		l.in = larger
	}
	for len(l.in) < n {
		got, err := l.conn.Read(l.in[len(l.in):cap(l.in)])
		l.in = l.in[:len(l.in)+got]
		if err != nil {
			return err
		}
	}
	return nil
}

// wipe forgets what was received and sent.
func (l *line) wipe() {
	l.in, l.out = wiped(l.in), wiped(l.out)
}

func wiped(b []byte) []byte {
	clear(b)
	if cap(b) > mostBuffer {
		return nil
	}
	return b[:0]
}
