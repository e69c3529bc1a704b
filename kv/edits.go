package kv

// Edits are the writes of one operation, as a reader gets them, as the edits that
// they stand for. It is false if the entries are of several operations, or of
// something else than edits: a value that was rewritten, a compaction, the end of
// a context, something that has run out. An edit need not do what its write does,
// see [Value.Edited]; whoever uses them holds the result against the fold.
func Edits(entries []Entry) ([]Edit, bool) {
	var edits []Edit
	for i := range entries {
		e := &entries[i]
		k, ok := e.Key.Context()
		switch {
		case !ok, e.Batch != entries[0].Batch, e.Batch == "" && len(entries) > 1, e.AsOf > 0, e.Compact > 0, e.Expired:
			return nil, false
		case k.Meta:
			continue
		case e.Op != Put && len(k.Path) == 0:
			return nil, false
		}
		edit := Edit{Path: k.Path, By: e.By}
		if e.Op == Put {
			v, err := e.value()
			if err != nil {
				return nil, false
			}
			edit.Value = v
		}
		edits = append(edits, edit)
	}
	return edits, len(edits) > 0
}
