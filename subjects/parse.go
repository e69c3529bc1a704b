package subjects

import "strings"

type (
	// Call is what a [Realm.CallSubject] says.
	Call struct {
		Realm    Realm
		To, From Node
		App      App
		Method   Token
	}

	// Ask is what a [Realm.AskSubject] says.
	Ask struct {
		Realm  Realm
		From   Node
		Method Token
	}

	// Ctl is what a [Realm.CtlSubject] says.
	Ctl struct {
		Realm    Realm
		To, From Node
		Verb     Verb
	}

	// Data is what a [Realm.DataSubject] says.
	Data struct {
		Realm          Realm
		Owner          Node
		App            App
		Stream, Branch Token
	}

	// Push is what a [Realm.PushSubject] says.
	Push struct {
		Realm     Realm
		To, Owner Node
		Sub       string
	}
)

// ParseCall reads a call subject.
func ParseCall(s string) (Call, error) {
	var t [4]string
	realm, ok := split(s, kindCall, t[:])
	if !ok || !isID(t[0]) || !isCaller(t[1]) || !isApp(t[2]) {
		return Call{}, notA(kindCall, s)
	}
	method, err := ParseToken(t[3])
	if err != nil {
		return Call{}, notA(kindCall, s)
	}
	return Call{realm, Node(t[0]), Node(t[1]), App(t[2]), method}, nil
}

// ParseAsk reads an ask subject.
func ParseAsk(s string) (Ask, error) {
	var t [2]string
	realm, ok := split(s, kindAsk, t[:])
	if !ok || !isCaller(t[0]) {
		return Ask{}, notA(kindAsk, s)
	}
	method, err := ParseToken(t[1])
	if err != nil {
		return Ask{}, notA(kindAsk, s)
	}
	return Ask{realm, Node(t[0]), method}, nil
}

// ParseCtl reads a ctl subject; an unknown verb is an error.
func ParseCtl(s string) (Ctl, error) {
	var t [3]string
	realm, ok := split(s, kindCtl, t[:])
	if !ok || !isID(t[0]) || !isCaller(t[1]) || !isVerb(Verb(t[2])) {
		return Ctl{}, notA(kindCtl, s)
	}
	return Ctl{realm, Node(t[0]), Node(t[1]), Verb(t[2])}, nil
}

// ParseData reads a data subject.
func ParseData(s string) (Data, error) {
	var t [4]string
	realm, ok := split(s, kindData, t[:])
	if !ok || !isID(t[0]) || !isApp(t[1]) {
		return Data{}, notA(kindData, s)
	}
	stream, err := ParseToken(t[2])
	if err != nil {
		return Data{}, notA(kindData, s)
	}
	branch, err := ParseToken(t[3])
	if err != nil {
		return Data{}, notA(kindData, s)
	}
	return Data{realm, Node(t[0]), App(t[1]), stream, branch}, nil
}

// ParsePush reads a push subject.
func ParsePush(s string) (Push, error) {
	var t [3]string
	realm, ok := split(s, kindPush, t[:])
	if !ok || !isCaller(t[0]) || !isID(t[1]) || !isPlain(t[2], maxShort) {
		return Push{}, notA(kindPush, s)
	}
	return Push{realm, Node(t[0]), Node(t[1]), t[2]}, nil
}

func isVerb(v Verb) bool {
	switch v {
	case VerbSubscribe, VerbConfirm, VerbUnsubscribe, VerbCancel, VerbPing, VerbInfo:
		return true
	}
	return false
}

// split cuts the tokens of s after the kind into t. The last one takes what
// is left, dots included, which no check of a token lets pass.
func split(s, kind string, t []string) (Realm, bool) {
	realm, s, ok := below(s, kind)
	if !ok {
		return "", false
	}
	last := len(t) - 1
	for i := range last {
		if t[i], s, ok = strings.Cut(s, "."); !ok {
			return "", false
		}
	}
	t[last] = s
	return realm, true
}

// below returns the realm of s and what follows "weft.<realm>.<kind>.".
func below(s, kind string) (Realm, string, bool) {
	if len(s) > MaxSubject {
		return "", "", false
	}
	root, s, _ := strings.Cut(s, ".")
	realm, s, _ := strings.Cut(s, ".")
	has, s, ok := strings.Cut(s, ".")
	return Realm(realm), s, ok && root == rootToken && has == kind && isID(realm)
}

func notA(kind, s string) error {
	return &BadNameError{s, "not a subject of kind " + kind}
}
