package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

// object is a JSON object with n members.
func object(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"m%d":%d`, i, i)
	}
	return "{" + strings.TrimPrefix(b.String(), ",") + "}"
}

// nested is an array in an array, and so on.
func nested(depth int) string { return strings.Repeat("[", depth) + strings.Repeat("]", depth) }

func TestJSONMembers(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want string // name=value, one after the other
		code Code
	}{
		"none":               {in: `{}`},
		"space":              {in: " \n{ \t} \r", want: ""},
		"one":                {in: `{"a":1}`, want: "a=1"},
		"in their order":     {in: `{"z":1,"a":"x","m":null}`, want: `z=1 a="x" m=null`},
		"values as they are": {in: ` { "a" : [1, 2 ] , "b":{ "c":"\u00e9" } , "n":-1.50E+2 } `, want: `a=[1, 2 ] b={ "c":"\u00e9" } n=-1.50E+2`},
		"names unescaped":    {in: `{"\u0061\n\"":true,"\u00e9":false}`, want: "a\n\"=true é=false"},
		"the empty name":     {in: `{"":1}`, want: "=1"},
		"a huge number":      {in: `{"a":1e999}`, want: "a=1e999"},
		"twice deeper":       {in: `{"a":{"b":1,"B":2,"b":3}}`, want: `a={"b":1,"B":2,"b":3}`},
		"deep":               {in: `{"a":` + nested(MaxDepth) + `}`, want: "a=" + nested(MaxDepth)},
		"often, not deep":    {in: `{"a":[` + strings.Repeat("[],{},", 200) + `0]}`, want: "a=[" + strings.Repeat("[],{},", 200) + "0]"},
		"brackets in text":   {in: `{"a":["\\",` + strings.Repeat(`"\"[{",`, 200) + `0]}`, want: `a=["\\",` + strings.Repeat(`"\"[{",`, 200) + `0]`},
		"deeper":             {in: `{"a":` + nested(MaxDepth+1) + `}`, code: BadPayload},
		"deeper objects":     {in: strings.Repeat(`{"a":`, MaxDepth+2) + `0` + strings.Repeat("}", MaxDepth+2), code: BadPayload},
		"deeper behind text": {in: `{"a":["\\",` + nested(MaxDepth) + `]}`, code: BadPayload},
		"as many as may be":  {in: object(MaxMembers), want: strings.NewReplacer(`"`, "", "{", "", "}", "", ":", "=", ",", " ").Replace(object(MaxMembers))},
		"one more":           {in: object(MaxMembers + 1), code: Limit},
		"too deep":           {in: `{"a":` + nested(20_000) + `}`, code: BadPayload},
		"twice":              {in: `{"a":1,"a":1}`, code: BadPayload},
		"twice, apart":       {in: `{"a":1,"b":2,"c":3,"a":1}`, code: BadPayload},
		"twice, by case":     {in: `{"type":1,"Type":2}`, code: BadPayload},
		"twice, escaped":     {in: `{"type":1,"t\u0079pe":2}`, code: BadPayload},
		"twice, folded":      {in: `{"k":1,"` + "\u212a" + `":2}`, code: BadPayload}, // the Kelvin sign
		"twice, not text":    {in: "{\"\xff\":1,\"\xfe\":2}", code: BadPayload},      // both become U+FFFD
		"twice, surrogates":  {in: `{"\ud800":1,"\udfff":2}`, code: BadPayload},
		"empty name twice":   {in: `{"":1,"":2}`, code: BadPayload},
		"nothing":            {in: ``, code: BadPayload},
		"space only":         {in: ` `, code: BadPayload},
		"an array":           {in: `[]`, code: BadPayload},
		"a string":           {in: `"{}"`, code: BadPayload},
		"null":               {in: `null`, code: BadPayload},
		"a word":             {in: `nope`, code: BadPayload},
		"cut in a name":      {in: `{"a`, code: BadPayload},
		"cut in a value":     {in: `{"a":[1,2`, code: BadPayload},
		"cut at the end":     {in: `{"a":1`, code: BadPayload},
		"cut at once":        {in: `{`, code: BadPayload},
		"a last comma":       {in: `{"a":1,}`, code: BadPayload},
		"a first comma":      {in: `{,"a":1}`, code: BadPayload},
		"no comma":           {in: `{"a":1 "b":2}`, code: BadPayload},
		"no colon":           {in: `{"a" 1}`, code: BadPayload},
		"no value":           {in: `{"a":}`, code: BadPayload},
		"no name":            {in: `{1:2}`, code: BadPayload},
		"another bracket":    {in: `{"a":1]`, code: BadPayload},
		"control character":  {in: "{\"a\":\"\x01\"}", code: BadPayload},
		"bytes after":        {in: `{"a":1}x`, code: BadPayload},
		"an object after":    {in: `{"a":1} {}`, code: BadPayload},
		"a bracket after":    {in: `{"a":1}}`, code: BadPayload},
	} {
		t.Run(name, func(t *testing.T) {
			before := []JSONMember{{Name: "A"}, {Name: "a"}} // no part of the object
			got, err := JSONMembers(before, []byte(c.in))
			if CodeOf(err) != c.code {
				t.Fatalf("got %v, want code %q", err, c.code)
			}
			if err != nil {
				return
			}
			if !reflect.DeepEqual(got[:2], before) {
				t.Errorf("what was in dst became %+v", got[:2])
			}
			var words []string
			for _, m := range got[2:] {
				words = append(words, m.Name+"="+string(m.Value))
			}
			if text := strings.Join(words, " "); text != c.want {
				t.Errorf("got %.300s, want %.300s", text, c.want)
			}
		})
	}
}

// Values are the bytes that were read, and of those no more than they show.
func TestJSONMembersShareTheirBytes(t *testing.T) {
	in := []byte(`{"a":1,"b":[2,3],"c":"x"}`)
	members, err := JSONMembers(nil, in)
	if err != nil {
		t.Fatal(err)
	}
	copy(in[bytes.IndexByte(in, '2'):], "7")
	if got := string(members[1].Value); got != "[7,3]" {
		t.Errorf("a changed byte shows as %s", got)
	}
	for _, m := range members {
		_ = append(m.Value, "overwritten"...)
	}
	if string(in) != `{"a":1,"b":[7,3],"c":"x"}` {
		t.Errorf("appending to a value changed the others: %s", in)
	}
	members, err = JSONMembers(members[:0], []byte(`{"d":4}`))
	if err != nil || len(members) != 1 || members[0].Name != "d" || string(in) != `{"a":1,"b":[7,3],"c":"x"}` {
		t.Errorf("got %+v, %v; before: %s", members, err, in)
	}
}

// What is read over and over must not make garbage beyond the names.
func TestJSONMembersAllocates(t *testing.T) {
	in := []byte(`{"type":"call","request_id":"12","arguments_kv":{"a":[1,2,3],"b":"` + strings.Repeat("x", 4000) + `"}}`)
	dst := make([]JSONMember, 0, 8)
	var err error
	if n := testing.AllocsPerRun(100, func() { dst, err = JSONMembers(dst[:0], in) }); n > 8 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
}

func TestJSONElements(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want string // elements between |
		code Code
	}{
		"none":              {in: `[]`},
		"space":             {in: " [\n] "},
		"some":              {in: ` [ 1 , "a,b" , [2, 3] , {"a":1,"A":1,"a":2} , null ] `, want: `1|"a,b"|[2, 3]|{"a":1,"A":1,"a":2}|null`},
		"deep":              {in: `[` + nested(5000) + `]`, want: nested(5000)},
		"too deep":          {in: nested(20_000), code: BadPayload},
		"nothing":           {in: ``, code: BadPayload},
		"an object":         {in: `{}`, code: BadPayload},
		"a string":          {in: `"[]"`, code: BadPayload},
		"null":              {in: `null`, code: BadPayload},
		"cut":               {in: `[1`, code: BadPayload},
		"cut at once":       {in: `[`, code: BadPayload},
		"cut after a comma": {in: `[1,`, code: BadPayload},
		"a last comma":      {in: `[1,]`, code: BadPayload},
		"a first comma":     {in: `[,1]`, code: BadPayload},
		"no comma":          {in: `[1 2]`, code: BadPayload},
		"another bracket":   {in: `[1}`, code: BadPayload},
		"bytes after":       {in: `[1]x`, code: BadPayload},
		"an array after":    {in: `[1] [2]`, code: BadPayload},
		"a bracket after":   {in: `[1]]`, code: BadPayload},
		"a comma after":     {in: `[1],`, code: BadPayload},
	} {
		t.Run(name, func(t *testing.T) {
			in := []byte(c.in)
			got, err := JSONElements(in)
			if CodeOf(err) != c.code {
				t.Fatalf("got %q, %v, want code %q", got, err, c.code)
			}
			if err != nil && got != nil {
				t.Errorf("elements %q with %v", got, err)
			}
			clear(in) // elements are copies
			if text := string(bytes.Join(got, []byte("|"))); err == nil && text != c.want {
				t.Errorf("got %.300s, want %.300s", text, c.want)
			}
		})
	}
}

func TestJSONString(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want string
		no   bool // it is no string
	}{
		"empty":             {in: `""`},
		"plain":             {in: `"hello, world"`, want: "hello, world"},
		"escaped":           {in: `"\"\\\/\b\f\n\r\t\u0000"`, want: "\"\\/\b\f\n\r\t\x00"},
		"not ASCII":         {in: `"Zürich 🧵"`, want: "Zürich 🧵"},
		"not ASCII escaped": {in: `"Z\u00fcrich \ud83e\uddf5"`, want: "Zürich 🧵"},
		"a quote at last":   {in: `"\""`, want: `"`},
		"not UTF-8":         {in: "\"a\xffb\"", want: "a\uFFFDb"},
		"lone surrogate":    {in: `"a\ud800b"`, want: "a\uFFFDb"},
		"low surrogate":     {in: `"\udfff"`, want: "\uFFFD"},
		"null":              {in: `null`, no: true},
		"true":              {in: `true`, no: true},
		"a number":          {in: `12`, no: true},
		"a digit":           {in: `1`, no: true},
		"an array":          {in: `["a"]`, no: true},
		"an object":         {in: `{"a":"b"}`, no: true},
		"nothing":           {in: ``, no: true},
	} {
		t.Run(name, func(t *testing.T) {
			if got, ok := JSONString([]byte(c.in)); got != c.want || ok == c.no {
				t.Errorf("got %q, %v, want %q", got, ok, c.want)
			}
		})
	}
}

func TestAppendJSONString(t *testing.T) {
	for in, want := range map[string]string{
		"":              `""`,
		"plain":         `"plain"`,
		`a"b\c`:         `"a\"b\\c"`,
		"\x00\n\x1f":    `"\u0000\n\u001f"`,
		"\x7f":          "\"\x7f\"",
		"Zürich 🧵":      `"Zürich 🧵"`,
		"a\xffb":        "\"a\uFFFDb\"",
		"\xed\xa0\x80":  "\"\uFFFD\"", // a surrogate in UTF-8
		"</script>&":    `"</script>&"`,
		"{\"a\":\"b\"}": `"{\"a\":\"b\"}"`,
	} {
		if got := string(AppendJSONString([]byte("x="), in)); got != "x="+want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestParseDetail(t *testing.T) {
	fill := func(n int) string { return `{"a":"` + strings.Repeat("x", n-len(`{"a":""}`)) + `"}` }
	for name, c := range map[string]struct {
		in   string
		code Code
	}{
		"nothing":         {in: ""},
		"an empty object": {in: "{}"},
		"an object":       {in: `{"a":[1,{"b":null}],"é":"\u00e9"}`},
		"as long as can":  {in: fill(MaxDetail)},
		"one byte more":   {in: fill(MaxDetail + 1), code: Limit},
		"long and wrong":  {in: strings.Repeat("x", MaxDetail+1), code: Limit},
		"an array":        {in: `[{}]`, code: BadPayload},
		"a string":        {in: `"{}"`, code: BadPayload},
		"null":            {in: `null`, code: BadPayload},
		"text":            {in: `hello`, code: BadPayload},
		"cut":             {in: `{"a":`, code: BadPayload},
		"two":             {in: `{}{}`, code: BadPayload},
		"bytes after":     {in: `{}x`, code: BadPayload},
		"too deep":        {in: `{"a":` + nested(MaxDepth) + `}`, code: BadPayload},
		"a huge number":   {in: `{"a":1e999}`, code: BadPayload},
	} {
		got, err := ParseDetail(c.in)
		if CodeOf(err) != c.code || err == nil && got != c.in || err != nil && got != "" {
			t.Errorf("%s: got %.60q, %v, want code %q", name, got, err, c.code)
		}
	}
}

// What a gateway client attached to an error is not lost on the way up.
func TestErrorDetail(t *testing.T) {
	inner := Errorf(AppError, "no such instrument")
	inner.Detail = `{"a":1}`
	for name, err := range map[string]error{
		"itself": inner, "wrapped": fmt.Errorf("call: %w", inner), "joined": errors.Join(errors.New("x"), inner), "as cause": fmt.Errorf("%w, %w", inner, errors.New("y")),
	} {
		if e := AsError(err); e.Detail != inner.Detail || e.Code != AppError {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if e := AsError(errors.New("x")); e.Detail != "" {
		t.Errorf("got %q", e.Detail)
	}
	if got := inner.Error(); strings.Contains(got, "{") {
		t.Errorf("the text is %q", got)
	}
}

// FuzzJSONMembers: what JSONMembers reads is what encoding/json reads, and it
// refuses nothing else than objects with a name twice or too many members.
func FuzzJSONMembers(f *testing.F) {
	seeds(f, false)
	for _, s := range []string{
		`{"type":"call","request_id":1}`, `{"a":1,"A":2}`, `{"a":{"a":[{}]}}`, "{\"\xff\":\"\xfe\"}", `{"\ud800":"\ud83e\uddf5"}`,
		object(MaxMembers), object(MaxMembers + 1), `{"a":1}x`, ` {"a" : -1.5e3 } `, `{"k":1,"` + "\u212a" + `":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		was := bytes.Clone(in)
		got, err := JSONMembers(nil, in)
		if !bytes.Equal(in, was) {
			t.Fatal("the input has changed")
		}
		var want map[string]json.RawMessage
		valid := json.Unmarshal(in, &want) == nil && want != nil
		if err != nil {
			if c := CodeOf(err); c != BadPayload && c != Limit {
				t.Fatal(err)
			}
			if !valid || deep(in) {
				return
			}
			if names := uniqueNames(in); names >= 0 && names <= MaxMembers {
				t.Fatalf("refused %d members: %v", names, err)
			}
			return
		}
		if !valid || len(got) != len(want) || len(got) > MaxMembers {
			t.Fatalf("%d members, encoding/json (valid: %v) has %d", len(got), valid, len(want))
		}
		for i, m := range got {
			if raw, ok := want[m.Name]; !ok || !bytes.Equal(raw, m.Value) {
				t.Fatalf("%q is %s, encoding/json has %s", m.Name, m.Value, raw)
			}
			for _, other := range got[:i] {
				if strings.EqualFold(m.Name, other.Name) {
					t.Fatalf("%q and %q", m.Name, other.Name)
				}
			}
		}
	})
}

// deep says whether a value could be nested too deep for either.
func deep(in []byte) bool {
	return bytes.Count(in, []byte("["))+bytes.Count(in, []byte("{")) > MaxDepth
}

// uniqueNames is how many members an object has, -1 if two have the same name
// but for case. The object must be valid.
func uniqueNames(object []byte) int {
	dec := json.NewDecoder(bytes.NewReader(object))
	if _, err := dec.Token(); err != nil {
		return -1
	}
	var names []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return -1
		}
		for _, other := range names {
			if strings.EqualFold(other, name.(string)) {
				return -1
			}
		}
		names = append(names, name.(string))
		var value json.RawMessage
		if dec.Decode(&value) != nil {
			return -1
		}
	}
	return len(names)
}

// FuzzJSONElements: an array is what encoding/json says is one.
func FuzzJSONElements(f *testing.F) {
	seeds(f, false)
	for _, s := range []string{`[1,"a",[2],{"a":1,"a":2}]`, `[1,]`, `[1]x`, `[1] [2]`, "[\"\xff\"]", ` [ ] `, `[1}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		got, err := JSONElements(in)
		var want []json.RawMessage
		valid := json.Unmarshal(in, &want) == nil && want != nil
		if valid != (err == nil) && !deep(in) {
			t.Fatalf("%v, encoding/json says %v", err, valid)
		}
		if err != nil {
			return
		}
		if len(got) != len(want) {
			t.Fatalf("%d elements, want %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("%s, want %s", got[i], want[i])
			}
		}
	})
}

// FuzzJSONString: any text survives as a JSON string, but for what is not
// UTF-8, which becomes U+FFFD; and any JSON string is read as encoding/json does.
func FuzzJSONString(f *testing.F) {
	for _, s := range []string{"", "plain", "\"\\\n\x00", "Zürich 🧵", "a\xff\xfeb", "\xed\xa0\x80", "\u2028\u2029\x7f\u0085", `\ud800`, `\ud83e\uddf5`, `\u00e9\n`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		text := AppendJSONString([]byte("x"), s)[1:]
		if !utf8.Valid(text) || !json.Valid(text) {
			t.Fatalf("%q became %s", s, text)
		}
		back, ok := JSONString(text)
		var theirs string
		if err := json.Unmarshal(text, &theirs); err != nil || !ok || back != theirs {
			t.Fatalf("%q became %q, %v; encoding/json says %q, %v", s, back, ok, theirs, err)
		}
		if want := strings.ToValidUTF8(s, "\uFFFD"); back != want {
			t.Fatalf("%q became %q, want %q", s, back, want)
		}
		literal := []byte(`"` + s + `"`)
		if json.Unmarshal(literal, &theirs) == nil {
			if back, ok := JSONString(literal); !ok || back != theirs {
				t.Fatalf("%s: %q, %v; encoding/json says %q", literal, back, ok, theirs)
			}
		}
	})
}
