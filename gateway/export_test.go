package gateway

import "github.com/weft-fabric/weft/kv"

// Updated is an object after a delta of a client, as JSON text, and the edits that the
// delta means for it.
func Updated(object, delta string) (updated string, edits []kv.Edit, err error) {
	now, err := readObject([]byte(object))
	if err != nil {
		return "", nil, err
	}
	d, err := readDelta([]byte(delta))
	if err != nil {
		return "", nil, err
	}
	if edits, err = d.edits(now); err != nil {
		return "", nil, err
	}
	if now, err = now.Edited(edits); err != nil {
		return "", nil, err
	}
	return string(valueJSON(now)), edits, nil
}

// Push is the delta that a client gets that has one object and should have another.
// held is "" if it is not known what it has.
func Push(held, view string, writes []kv.Edit) (string, error) {
	v, err := readObject([]byte(view))
	if err != nil {
		return "", err
	}
	if held == "" {
		return string(deltaJSON(nil, v, writes)), nil
	}
	h, err := readObject([]byte(held))
	if err != nil {
		return "", err
	}
	return string(deltaJSON(h, v, writes)), nil
}

// Followed is what the gateway is certain that a client has after updates of the
// client, "" if it does not know.
func Followed(held string, deltas []string) (string, error) {
	h, err := readObject([]byte(held))
	if err != nil {
		return "", err
	}
	c := &shared{held: h}
	for _, delta := range deltas {
		d, err := readDelta([]byte(delta))
		if err != nil {
			return "", err
		}
		c.applied(d)
	}
	v := c.certain()
	if v == nil {
		return "", nil
	}
	return string(valueJSON(v)), nil
}

// Parse reads a frame and returns what a session asks of it first.
func Parse(data []byte) (domain, kind string, err error) {
	f, err := parse(data)
	if err != nil {
		return "", "", err
	}
	return f.domain, f.kind, nil
}
