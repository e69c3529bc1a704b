package subjects

import "strings"

// Topic is what a [Realm.TopicSubject] says. If a token of it is a hash, the
// name is not in the subject: then NameKnown is false and Name empty until
// WithName.
type Topic struct {
	Realm     Realm
	From      Node
	Name      string
	NameKnown bool

	tokens string // as on the wire, if NameKnown is false
}

// TopicSubject is where from publishes on topic. A '.' in topic separates
// tokens, each of which is encoded by itself; a wildcard is encoded like any
// other character.
func (r Realm) TopicSubject(from Node, topic string) (Subject, error) {
	return r.topic(safe(from), topic, false)
}

// TopicFilter matches what anyone publishes on the topics that match pattern,
// in which the whole token "*" stands for any one token and ">" as the last
// token for one or more.
func (r Realm) TopicFilter(pattern string) (Subject, error) {
	return r.topic(one, pattern, true)
}

func (r Realm) topic(from, topic string, filter bool) (Subject, error) {
	tokens, err := encodeTopic(topic, filter)
	if err != nil {
		return "", err
	}
	s := r.subject(kindTopic, from, tokens)
	if len(s) > MaxSubject {
		return "", tooLong(topic)
	}
	return s, nil
}

// ParseTopic reads a topic subject.
func ParseTopic(s string) (Topic, error) {
	realm, s2, ok := below(s, kindTopic)
	from, tokens, more := strings.Cut(s2, ".")
	if !ok || !more || !isCaller(from) {
		return Topic{}, notA(kindTopic, s)
	}
	t := Topic{Realm: realm, From: Node(from), tokens: tokens}
	name, known, ok := decodeTopic(tokens)
	if !ok {
		return Topic{}, notA(kindTopic, s)
	}
	if known {
		t.Name, t.NameKnown, t.tokens = name, true, ""
	}
	return t, nil
}

// WithName returns t with its name, or an error if name is not the topic that
// the subject encodes.
func (t Topic) WithName(name string) (Topic, error) {
	tokens, err := encodeTopic(name, false)
	if err != nil {
		return Topic{}, err
	}
	if t.NameKnown && name != t.Name || !t.NameKnown && tokens != t.tokens {
		return Topic{}, &BadNameError{name, "not the name of its topic"}
	}
	t.Name, t.NameKnown, t.tokens = name, true, ""
	return t, nil
}

// MatchTopic reports whether the filter of pattern matches the subject of
// topic, for names that [Realm.TopicFilter] and [Realm.TopicSubject] accept.
func MatchTopic(pattern, topic string) bool {
	for {
		want, patternRest, patternMore := strings.Cut(pattern, ".")
		if want == rest && !patternMore {
			return true
		}
		has, topicRest, topicMore := strings.Cut(topic, ".")
		if want != one && want != has {
			return false
		}
		if !patternMore || !topicMore {
			return patternMore == topicMore
		}
		pattern, topic = patternRest, topicRest
	}
}

// encodeTopic stops early at a topic that no subject can hold, so its work is
// bounded.
func encodeTopic(topic string, filter bool) (string, error) {
	if isPlain(topic, MaxToken) {
		return topic, nil
	}
	var b strings.Builder
	for left, more := topic, true; more; {
		var name string
		name, left, more = strings.Cut(left, ".")
		if filter && (name == one || name == rest && !more) {
			b.WriteString(name)
		} else {
			t, err := Encode(name)
			if err != nil {
				return "", err
			}
			b.WriteString(t.String())
		}
		if more {
			b.WriteByte('.')
		}
		if b.Len() > MaxSubject {
			return "", tooLong(topic)
		}
	}
	return b.String(), nil
}

// decodeTopic returns the name that tokens encode and whether it is known; ok
// is false for tokens that encodeTopic does not make.
func decodeTopic(tokens string) (name string, known, ok bool) {
	known = true
	escaped := strings.IndexByte(tokens, '=') >= 0
	var b strings.Builder
	for left, more := tokens, true; more; {
		var s string
		s, left, more = strings.Cut(left, ".")
		t, err := ParseToken(s)
		if err != nil {
			return "", false, false
		}
		if !escaped {
			continue
		}
		part, partKnown := t.Name()
		known = known && partKnown
		b.WriteString(part)
		if more {
			b.WriteByte('.')
		}
	}
	if !escaped {
		return tokens, true, true
	}
	return b.String(), known, true
}

func tooLong(topic string) error {
	return &BadNameError{topic, "its subject is longer than 1024 bytes"}
}
