package subjects

import "strings"

type (
	// Bucket is the name of a KV bucket.
	Bucket string

	// Stream is the name of a JetStream stream.
	Stream string

	// Key is a key of a bucket, or a filter over keys, without the
	// "$KV.<bucket>." before it.
	Key string

	// ContextKey is what a key of the context bucket says: the object's root
	// (Path empty), a path in it, or the metadata beside it (Meta).
	ContextKey struct {
		Context Token
		Path    []string
		Meta    bool
	}
)

const (
	bucketContext   = "ctx"
	bucketDirectory = "dir"
	historyStream   = "history"
	rootMark        = "/"
	metaMark        = "//"
	nodePrefix      = "n."
	leasePrefix     = "lease."
	manifestPrefix  = "if."
)

// ContextBucket holds the contexts of the realm.
func (r Realm) ContextBucket() Bucket { return r.bucket(bucketContext) }

// DirectoryBucket holds who is in the realm.
func (r Realm) DirectoryBucket() Bucket { return r.bucket(bucketDirectory) }

func (r Realm) bucket(kind string) Bucket {
	return Bucket(rootToken + "_" + safe(r) + "_" + kind)
}

// HistoryStream keeps what was written to the context bucket: the server copies
// every message of it there, under the same subject.
func (r Realm) HistoryStream() Stream { return Stream(r.bucket(historyStream)) }

// Stream is the name of the JetStream stream below the bucket.
func (b Bucket) Stream() string { return "KV_" + string(b) }

// DirectGet is where any replica of the stream answers reads.
func (s Stream) DirectGet() Subject { return Subject("$JS.API.DIRECT.GET." + string(s)) }

// Info is where the leader of the stream answers STREAM.INFO.
func (s Stream) Info() Subject { return Subject("$JS.API.STREAM.INFO." + string(s)) }

// Subject is where a put of k goes. For a key that is a filter it is a filter.
func (b Bucket) Subject(k Key) Subject { return Subject("$KV." + string(b) + "." + string(k)) }

// Filter matches every key.
func (b Bucket) Filter() Subject { return b.Subject(rest) }

// DirectGet is where any replica of the stream answers reads.
func (b Bucket) DirectGet() Subject { return Stream(b.Stream()).DirectGet() }

// DirectGetLast is where any replica answers with the last value of k.
func (b Bucket) DirectGetLast(k Key) Subject { return b.DirectGet() + "." + b.Subject(k) }

// Info is where the leader of the stream answers STREAM.INFO.
func (b Bucket) Info() Subject { return Stream(b.Stream()).Info() }

// LeaderElected is where the server announces that the stream has a new leader.
func (b Bucket) LeaderElected() Subject {
	return Subject("$JS.EVENT.ADVISORY.STREAM.LEADER_ELECTED." + b.Stream())
}

// ContextRepublish is where the server repeats a put of k of the context
// bucket. For a key that is a filter it is a filter.
func (r Realm) ContextRepublish(k Key) Subject {
	return r.subject(kindKV, bucketContext, string(k))
}

// ContextRepublishFilter matches every put of the context bucket.
func (r Realm) ContextRepublishFilter() Subject { return r.ContextRepublish(rest) }

// DirectoryRepublish is where the server repeats a put of k of the directory
// bucket, for keys below [NodeKeys]. For a key that is a filter it is a
// filter.
func (r Realm) DirectoryRepublish(k Key) Subject {
	return r.subject(kindKV, bucketDirectory, string(k))
}

// DirectoryRepublishFilter matches every put that the server repeats from the
// directory bucket.
func (r Realm) DirectoryRepublishFilter() Subject { return r.DirectoryRepublish(rest) }

// ContextKeyOf returns the key of a message of the context bucket, stored or
// republished.
func (r Realm) ContextKeyOf(s Subject) (Key, error) { return r.keyOf(s, bucketContext) }

// DirectoryKey returns the key of a message of the directory bucket, stored
// or republished.
func (r Realm) DirectoryKey(s Subject) (Key, error) { return r.keyOf(s, bucketDirectory) }

func (r Realm) keyOf(s Subject, kind string) (Key, error) {
	realm := safe(r)
	k, ok := cutAll(string(s), "$KV.", rootToken, "_", realm, "_", kind, ".")
	if !ok {
		k, ok = cutAll(string(s), rootToken, ".", realm, ".", kindKV, ".", kind, ".")
	}
	if !ok || !isKey(k) {
		return "", &BadNameError{string(s), "not a subject of the bucket " + string(r.bucket(kind))}
	}
	return Key(k), nil
}

// NodeKey is the key of n's document.
func NodeKey(n Node) Key { return Key(nodePrefix + safe(n)) }

// NodeKeys matches the documents of all nodes.
func NodeKeys() Key { return nodePrefix + rest }

// LeaseKey is the key of n's heartbeat.
func LeaseKey(n Node) Key { return Key(leasePrefix + safe(n)) }

// ManifestKey is the key of a method manifest; its hash is 1 to 64 of
// [A-Za-z0-9_-].
func ManifestKey(hash string) (Key, error) {
	if !isPlain(hash, maxShort) {
		return "", &BadNameError{hash, "a manifest hash is 1 to 64 of A-Z, a-z, 0-9, _ and -"}
	}
	return Key(manifestPrefix + hash), nil
}

// Node returns whose document or heartbeat k is, and false for other keys.
func (k Key) Node() (Node, bool) {
	n, ok := strings.CutPrefix(string(k), nodePrefix)
	if !ok {
		n, ok = strings.CutPrefix(string(k), leasePrefix)
	}
	if !ok || !isID(n) {
		return "", false
	}
	return Node(n), true
}

// ContextRoot is the key of the context's object as a whole.
func ContextRoot(context Token) Key { return Key(context.String() + "." + rootMark) }

// ContextMeta is the key of what is known about the context beside its
// object.
func ContextMeta(context Token) Key { return Key(context.String() + "." + metaMark) }

// ContextRoots matches the root keys of all contexts.
func ContextRoots() Key { return one + "." + rootMark }

// ContextKeys matches all keys of one context.
func ContextKeys(context Token) Key { return Key(context.String() + "." + rest) }

// ContextPath returns the key for the value at path, or for its nearest
// ancestor that can be a key, and how many segments of path that key covers:
// len(path) if path itself can be a key, 0 for the root. What stops a path is
// a segment that is a bad name or is longer than MaxToken when encoded, more
// than MaxSegments, or a key longer than MaxSubject.
func ContextPath(context Token, path []string) (k Key, covered int) {
	var b strings.Builder
	b.WriteString(context.String())
	for covered < len(path) && covered < MaxSegments {
		t, err := Encode(path[covered])
		if err != nil || t.Hashed() || b.Len()+1+len(t.String()) > MaxSubject {
			break
		}
		b.WriteByte('.')
		b.WriteString(t.String())
		covered++
	}
	if covered == 0 {
		return ContextRoot(context), 0
	}
	return Key(b.String()), covered
}

// Context reads a key of the context bucket, and is false for a key that
// [ContextRoot], [ContextMeta] and [ContextPath] do not make.
func (k Key) Context() (ContextKey, bool) {
	name, path, ok := strings.Cut(string(k), ".")
	context, err := ParseToken(name)
	if !ok || err != nil || len(k) > MaxSubject {
		return ContextKey{}, false
	}
	switch path {
	case rootMark:
		return ContextKey{Context: context}, true
	case metaMark:
		return ContextKey{Context: context, Meta: true}, true
	}
	segments := strings.Count(path, ".") + 1
	if segments > MaxSegments {
		return ContextKey{}, false
	}
	c := ContextKey{Context: context, Path: make([]string, 0, segments)}
	for s := range strings.SplitSeq(path, ".") {
		t, err := ParseToken(s)
		if err != nil || t.Hashed() {
			return ContextKey{}, false
		}
		segment, _ := t.Name()
		c.Path = append(c.Path, segment)
	}
	return c, true
}

// cutAll cuts the prefixes off s one after the other.
func cutAll(s string, prefixes ...string) (string, bool) {
	for _, p := range prefixes {
		rest, ok := strings.CutPrefix(s, p)
		if !ok {
			return "", false
		}
		s = rest
	}
	return s, true
}

// isKey reports whether s can be a key of any bucket.
func isKey(s string) bool {
	if s == "" || len(s) > MaxSubject {
		return false
	}
	dot := true // one has just been seen, or the start
	for i := range len(s) {
		c := s[i]
		if c == '.' && dot || c != '.' && !plain[c] && c != '/' && c != '=' {
			return false
		}
		dot = c == '.'
	}
	return !dot
}
