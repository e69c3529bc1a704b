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

// measures checks what a client must say of itself to join metrics.
func (p *peer) measures(f *frame) bool {
	options := frame{}
	if raw := f.raw("options"); isObject(raw) {
		if o, err := parse(raw); err == nil {
			options = *o
		}
	}
	for _, name := range []string{"system", "service", "instance"} {
		if options.raw(name) == nil {
			p.fail(f, domainMetrics, domainMetrics+"."+uriBadIdentity, "metrics need options.system, options.service and options.instance")
			return false
		}
	}
	return true
}
