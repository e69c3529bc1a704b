package gateway

// metrics handles the domain metrics: what clients define and publish there is
// taken and dropped, for there is no store behind it.
func (p *peer) metrics(f *frame) {
	switch f.kind {
	case "define", "publish":
	default:
		p.unhandled(f)
	}
}
