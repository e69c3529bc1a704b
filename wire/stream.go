package wire

// StreamKind tells the messages on data and push subjects apart.
type StreamKind uint8

// The kinds.
const (
	StreamData  StreamKind = iota // an item of the stream
	StreamMark                    // the branch has reached Seq
	StreamClose                   // the subscription ends
)

// StreamMessage is one message of a stream. They carry no headers.
type StreamMessage struct {
	Kind       StreamKind
	Epoch, Seq uint64
	Body       []byte // of StreamData: one msgpack value; it aliases what was parsed
	Code       Code   // of StreamClose
	Reason     string // of StreamClose
}

// AppendStreamData appends [epoch, seq, body]. body is one msgpack value and
// is embedded as it is; none at all is written as nil.
func AppendStreamData(dst []byte, epoch, seq uint64, body []byte) []byte {
	dst = appendUint(appendUint(append(dst, 0x93), epoch), seq)
	if len(body) == 0 {
		return append(dst, 0xc0)
	}
	return append(dst, body...)
}

// AppendStreamMark appends [epoch, seq]: the branch has reached seq. It starts
// a subscription and announces an idle branch.
func AppendStreamMark(dst []byte, epoch, seq uint64) []byte {
	return appendUint(appendUint(append(dst, 0x92), epoch), seq)
}

// AppendStreamClose appends [epoch, seq, code, reason]. The reason is cut at 4 KiB.
func AppendStreamClose(dst []byte, epoch, seq uint64, code Code, reason string) []byte {
	dst = appendUint(appendUint(append(dst, 0x94), epoch), seq)
	return appendStr(appendStr(dst, string(code)), cut(reason, maxText))
}

// ParseStream reads one message and checks all of it. The body counts its own
// depth: a payload that passes Check passes here too. A code that this version
// does not know becomes internal.
func ParseStream(data []byte) (StreamMessage, error) {
	var m StreamMessage
	if len(data) == 0 {
		return m, badByte(0, "an empty stream message")
	}
	k, n, i := head(data, 0)
	if k != kArray || n < 2 || n > 4 {
		return m, badByte(0, "a stream message is an array of 2, 3 or 4")
	}
	var err error
	if m.Epoch, i, err = streamNumber(data, i); err != nil {
		return StreamMessage{}, err
	}
	if m.Seq, i, err = streamNumber(data, i); err != nil {
		return StreamMessage{}, err
	}
	switch n {
	case 2:
		m.Kind = StreamMark
		if i < len(data) {
			return StreamMessage{}, badByte(i, "bytes after the value")
		}
	case 3:
		m.Kind, m.Body = StreamData, data[i:]
		if err := Check(m.Body); err != nil {
			return StreamMessage{}, err
		}
	case 4:
		m.Kind = StreamClose
		if m.Code, m.Reason, err = streamReason(data, i); err != nil {
			return StreamMessage{}, err
		}
	}
	return m, nil
}

func streamNumber(data []byte, i int) (v uint64, next int, err error) {
	if i < len(data) {
		if k, v, next := head(data, i); k == kUint {
			return v, next, nil
		}
	}
	return 0, 0, badByte(i, "epoch and sequence are unsigned integers")
}

func streamReason(data []byte, i int) (Code, string, error) {
	var text [2][]byte
	for n := range text {
		length, err := CheckFirst(data[i:])
		if err != nil {
			return "", "", err
		}
		k, v, next := head(data, i)
		if k != kStr {
			return "", "", badByte(i, "code and reason are strings")
		}
		text[n], _ = span(data, k, v, next)
		i += length
	}
	if i < len(data) {
		return "", "", badByte(i, "bytes after the value")
	}
	e := FromHeader(string(text[0]), string(text[1]))
	return e.Code, e.Message, nil
}
