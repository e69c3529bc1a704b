package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weft-fabric/weft/node/embedded"
	"github.com/weft-fabric/weft/subjects"
)

// hub is an embedded server of this user that answers.
type hub struct {
	embedded.Credentials
	realms []string // whose buckets it has
}

// realm is the wanted one; or else this user's, unless the hub does not have
// it and has just one other.
func (h *hub) realm(want string) string {
	own := string(subjects.RealmFor(userName()))
	switch {
	case want != "":
		return want
	case len(h.realms) == 1 && !slices.Contains(h.realms, own):
		return h.realms[0]
	}
	return own
}

// theHub is the one hub that answers; false if none does.
func theHub(ctx context.Context) (*hub, bool, error) {
	hubs, err := hubs(ctx)
	switch len(hubs) {
	case 0:
		return nil, false, err
	case 1:
		return hubs[0], true, nil
	}
	list := make([]string, len(hubs))
	for i, h := range hubs {
		list[i] = fmt.Sprintf("%s (%s)", h.URL, h.Node)
	}
	return nil, false, usageError{fmt.Errorf("several nodes run on this machine, choose one with --nats: %s", strings.Join(list, ", "))}
}

// hubs lists the embedded servers of this user that answer. The error says
// which credentials files are of no use.
func hubs(ctx context.Context) ([]*hub, error) {
	found, bad := embedded.Find("")
	answers := make([]chan *hub, 0, len(found))
	for _, c := range found {
		if c.PID == 0 || c.URL == "" {
			continue // stopped in order
		}
		answer := make(chan *hub, 1)
		answers = append(answers, answer)
		go func() { answer <- ask(ctx, c) }()
	}
	var list []*hub
	for _, answer := range answers {
		if h := <-answer; h != nil {
			list = append(list, h)
		}
	}
	return list, bad
}

// ask connects to a server and looks which realms it has; nil if it does not
// let us in.
func ask(ctx context.Context, c embedded.Credentials) *hub {
	const patience = 2 * time.Second
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	nc, err := nats.Connect(c.URL, nats.UserInfo(c.User, c.Password), nats.Timeout(patience), nats.NoReconnect(), nats.Name("weft"))
	if err != nil {
		return nil
	}
	defer nc.Close()
	h := &hub{Credentials: c}
	js, err := jetstream.New(nc)
	if err != nil {
		return h
	}
	names := js.StreamNames(ctx)
	for name := range names.Name() {
		if realm, ok := realmOf(name); ok {
			h.realms = append(h.realms, realm)
		}
	}
	return h
}

// realmOf is the realm whose directory a stream is.
func realmOf(stream string) (string, bool) {
	const probe = "x" // any realm shows what stands before and after its name
	before, after, _ := strings.Cut(subjects.Realm(probe).DirectoryBucket().Stream(), probe)
	name, ok1 := strings.CutPrefix(stream, before)
	name, ok2 := strings.CutSuffix(name, after)
	_, err := subjects.ParseRealm(name)
	return name, ok1 && ok2 && err == nil
}

// envCommand prints what other NATS clients need.
type envCommand struct {
	NATS  string `name:"nats" short:"s" placeholder:"URL" help:"Which server, if several nodes run here."`
	Realm string `name:"realm" from:"WEFT_REALM" placeholder:"NAME" help:"Realm; yours unless given."`
}

// Help is the long help.
func (*envCommand) Help() string {
	return `In a shell: eval "$(weft env)". Then "nats" and every other NATS client that
reads these variables reaches the server of the running node.`
}

// Run prints shell commands; with --json an object.
func (c *envCommand) Run(ctx context.Context, p *program) error {
	h, err := c.hub(ctx)
	if err != nil {
		return err
	}
	lines := [][2]string{
		{"NATS_URL", h.URL}, {"NATS_USER", h.User}, {"NATS_PASSWORD", h.Password}, {"WEFT_REALM", h.realm(c.Realm)},
	}
	if p.json {
		object := map[string]string{}
		for _, line := range lines {
			object[line[0]] = line[1]
		}
		return p.printJSON(object)
	}
	for _, line := range lines {
		p.printf("export %s=%s", line[0], shellQuote(line[1]))
	}
	return nil
}

func (c *envCommand) hub(ctx context.Context) (*hub, error) {
	if c.NATS == "" {
		h, ok, err := theHub(ctx)
		if err == nil && !ok {
			err = errors.New("no running node found: start one with \"weft up\"")
		}
		return h, err
	}
	found, ok, err := embedded.FindURL("", c.NATS)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("no node of yours runs a NATS server at %s: start one with \"weft up\", or leave --nats out", withoutPassword(c.NATS))
	}
	if h := ask(ctx, found); h != nil {
		return h, nil
	}
	return nil, fmt.Errorf("the NATS server at %s does not answer: start its node (%s) with \"weft up\"", found.URL, found.Node)
}

// shellQuote makes s one word of a POSIX shell.
func shellQuote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("_-./:@", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
