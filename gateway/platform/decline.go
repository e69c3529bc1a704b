package platform

import (
	"context"
	"encoding/json"

	"github.com/weft-fabric/weft/wire"
)

// declined are methods that Weft cannot do and nobody else can, since clients
// call them on the peer that has the applications and the windows. They are
// offered because the libraries wait 90 seconds for a method that nobody offers;
// so an app hears at once. The value says what an app asked for.
var declined = map[string]string{
	"T42.ACS.StartApplication":    "start applications",
	"T42.ACS.StopApplication":     "stop applications",
	"T42.ACS.ActivateApplication": "activate applications",
	"T42.ACS.Execute":             "say who started an application",
	"T42.Wnd.Create":              "open windows",
	"T42.Wnd.Execute":             "manage windows",
	"T42.Group.Execute":           "manage groups of windows",
}

func decline(what string) method {
	return func(context.Context, Caller, json.RawMessage) (any, error) {
		return nil, wire.Errorf(wire.Rejected, "Weft shares data and does not %s", what)
	}
}

// execute is T42.GD.Execute. Every client that is a Node program announces itself
// there when it has started; the other commands are for the container of browser
// apps.
func (p *Platform) execute(_ context.Context, _ Caller, args json.RawMessage) (any, error) {
	var a struct {
		Command string `json:"command"`
	}
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	if a.Command != "announce-instance-ready" {
		return nil, wire.Errorf(wire.Rejected, "Weft shares data and does not execute the command %q", a.Command)
	}
	return struct{}{}, nil
}

// windowEvents is T42.Wnd.OnEvent: there are no windows, which the client's
// library must hear before it starts.
func windowEvents(_ Caller, args json.RawMessage, push func(json.RawMessage)) (func(), error) {
	var a struct {
		WithConfig bool `json:"withConfig"`
	}
	if err := decode(args, &a); err != nil {
		return nil, err
	}
	if a.WithConfig {
		push(json.RawMessage(`{"type":"Configuration","windowAvailableOnURLChanged":true}`))
	}
	push(json.RawMessage(`{"type":"Snapshot","windows":[]}`))
	return func() {}, nil
}
