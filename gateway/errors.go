package gateway

import (
	"encoding/json"

	"github.com/weft-fabric/weft/wire"
)

// The domains of the protocol.
const (
	domainGlobal   = "global"
	domainAGM      = "agm"
	domainContext  = "context"
	domainBus      = "bus"
	domainMetrics  = "metrics"
	domainActivity = "activity"
)

// The reason URIs; each follows the name of a domain and a dot.
const (
	uriFailure        = "errors.failure"
	uriUnhandled      = "errors.unhandled_message"
	uriAlreadySeen    = "errors.already_seen"
	uriInvalidDomain  = "errors.invalid_domain"
	uriInvalidPeer    = "errors.invalid_peer"
	uriAuthentication = "errors.authentication.failure"
	uriLimits         = "errors.limits_exceeded"
	uriNotAuthorized  = "errors.not_authorized"
	uriBadLifetime    = "errors.bad_lifetime"
	uriRegistration   = "errors.registration.failure"
	uriUnregistration = "errors.unregistration.failure"
	uriInvocation     = "errors.invocation.failure"
	uriSubscription   = "errors.subscription.failure"
	uriBadSubscriber  = "errors.subscription.invalid_subscription"
	uriPeerRemoved    = "peer-removed"
	uriMethodRemoved  = "method-removed"
	uriDestroyed      = "destroyed"
	uriPeerLeft       = "peer-left"
)

// What clients' libraries say themselves.
const (
	uriClientError = "agm.errors.client_error"
	uriRejected    = "com.tick42.agm.errors.subscription.failure"
)

// Texts that clients test for, or show.
const (
	textPeerRemoved   = "Peer has been removed"
	textMethodRemoved = "Method has been removed"
	textPeerLeft      = "Peer has left while waiting for result"
	textDestroyed     = "Context destroyed explicitly"
	textOrphaned      = "Context destroyed because its owner/last peer left"
	textNoContext     = "Unable to find context with id "
	textSubscription  = "Trying to drop a non-existing subscription"
	textUnestablished = "Trying to drop a subscription that wasnt established. Did you mean to return an error instead?"
)

// detail is what travels beside a call, a subscription or an error between
// clients of two gateways; see wire's HeaderDetail.
type detail struct {
	URI string `json:"uri,omitempty"`
	// Reason is a text that has more than one line, which the message of an error
	// has not.
	Reason  string          `json:"reason,omitempty"`
	Context json.RawMessage `json:"context,omitempty"`
	Flags   json.RawMessage `json:"flags,omitempty"`
}

// text is the detail as it travels, "" if there is none.
func (d detail) text() (string, error) {
	if d.URI == "" && d.Reason == "" && d.Context == nil && d.Flags == nil {
		return "", nil
	}
	b, err := json.Marshal(d)
	if err != nil {
		return "", wire.Errorf(wire.BadPayload, "context or flags: %w", err)
	}
	return wire.ParseDetail(string(b))
}

// readDetail reads what text made. What somebody else wrote there is left out.
func readDetail(text string) (d detail) {
	if text == "" {
		return d
	}
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		return detail{}
	}
	return d
}

// reasonOf is the URI, the text and the context of an error for the caller of a
// method or the subscriber of a stream.
func reasonOf(err error, byServer string) (uri, reason string, context []byte) {
	e := wire.AsError(err)
	d := readDetail(e.Detail)
	uri, reason, context = d.URI, e.Message, d.Context
	if d.Reason != "" {
		reason = d.Reason
	}
	switch {
	case uri != "":
	case e.Code == wire.AppError || e.Code == wire.Rejected:
		uri = byServer
	case e.Code == wire.TargetGone:
		uri, reason = domainAGM+"."+uriInvocation, textPeerLeft
	default:
		uri, reason = domainAGM+"."+uriInvocation, string(e.Code)+": "+e.Message
	}
	return uri, reason, context
}
