package wire

import (
	"encoding"
	"reflect"
	"strings"
	"sync"

	"github.com/vmihailenco/msgpack/v5"
)

// codec says how a type wants to be decoded.
type codec uint8

const (
	byKind    codec = iota // by its reflect.Kind, here
	byCustom               // msgpack.CustomDecoder
	byMsgpack              // msgpack.Unmarshaler
	byBytes                // encoding.BinaryUnmarshaler or TextUnmarshaler
)

var (
	customType  = reflect.TypeFor[msgpack.CustomDecoder]()
	msgpackType = reflect.TypeFor[msgpack.Unmarshaler]()
	binaryType  = reflect.TypeFor[encoding.BinaryUnmarshaler]()
	textType    = reflect.TypeFor[encoding.TextUnmarshaler]()
)

var codecs sync.Map // reflect.Type -> codec

// codecOf looks at what *t implements, in the order of the msgpack package.
func codecOf(t reflect.Type) codec {
	if t.Kind() == reflect.Pointer || t.PkgPath() == "" && t.Kind() != reflect.Struct {
		return byKind // no methods, or those of the element
	}
	if c, ok := codecs.Load(t); ok {
		return c.(codec)
	}
	c := byKind
	switch p := reflect.PointerTo(t); {
	case p.Implements(customType):
		c = byCustom
	case p.Implements(msgpackType):
		c = byMsgpack
	case p.Implements(binaryType), p.Implements(textType):
		c = byBytes
	}
	codecs.Store(t, c)
	return c
}

// structPlan is how a struct is read. It mirrors what the msgpack package does
// when it writes the struct, embedded fields and aliases included.
type structPlan struct {
	byName map[string][]int // name -> index path
	list   []planField      // in order, for structs written as arrays
}

type planField struct {
	name  string
	index []int
}

type planKey struct {
	t        reflect.Type
	jsonTags bool
}

var plans sync.Map // planKey -> *structPlan

func planOf(t reflect.Type, jsonTags bool) *structPlan {
	key := planKey{t, jsonTags}
	if p, ok := plans.Load(key); ok {
		return p.(*structPlan)
	}
	p := makePlan(t, jsonTags)
	plans.Store(key, p)
	return p
}

func makePlan(t reflect.Type, jsonTags bool) *structPlan {
	plan := &structPlan{byName: make(map[string][]int, t.NumField())}
	for f := range t.Fields() {
		tag := f.Tag.Get("msgpack")
		if tag == "" && jsonTags {
			tag = f.Tag.Get("json")
		}
		name, options, _ := strings.Cut(tag, ",")
		if name == "-" || !f.IsExported() && !f.Anonymous {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if f.Anonymous && plan.inline(f, options, jsonTags) {
			plan.byName[name] = f.Index
			continue
		}
		if !f.IsExported() {
			continue
		}
		plan.add(planField{name, f.Index})
		for option := range strings.SplitSeq(options, ",") {
			if alias, ok := strings.CutPrefix(option, "alias:"); ok {
				plan.byName[alias] = f.Index
			}
		}
	}
	return plan
}

func (p *structPlan) add(f planField) {
	p.byName[f.name] = f.index
	p.list = append(p.list, f)
}

// inline takes over the fields of an embedded struct; without the option
// "inline" only if none of them is shadowed.
func (p *structPlan) inline(f reflect.StructField, options string, jsonTags bool) bool {
	t := f.Type
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || t == timeType || codecOf(t) != byKind || hasOption(options, "noinline") {
		return false
	}
	inner := planOf(t, jsonTags).list
	forced := hasOption(options, "inline")
	for _, g := range inner {
		if _, shadowed := p.byName[g.name]; shadowed && !forced {
			return false
		}
	}
	for _, g := range inner {
		if _, shadowed := p.byName[g.name]; !shadowed {
			index := append(append([]int(nil), f.Index...), g.index...)
			p.add(planField{g.name, index})
		}
	}
	return true
}

func hasOption(options, want string) bool {
	for option := range strings.SplitSeq(options, ",") {
		if option == want {
			return true
		}
	}
	return false
}

// fieldAt is v.FieldByIndex that, with grow, makes embedded pointers on the
// way. It fails at a nil one without grow, and at one that is unexported.
func fieldAt(v reflect.Value, index []int, grow bool) (reflect.Value, bool) {
	for n, i := range index {
		if n > 0 && v.Kind() == reflect.Pointer {
			if v.IsNil() {
				if !grow || !v.CanSet() {
					return v, false
				}
				v.Set(reflect.New(v.Type().Elem()))
			}
			v = v.Elem()
		}
		v = v.Field(i)
	}
	return v, v.CanSet()
}
