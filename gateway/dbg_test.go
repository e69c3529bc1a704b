package gateway_test
import "testing"
func TestDbg(t *testing.T) {
	a, b := ownTwo(t)
	server := app(t, a, "pricer", "agm")
	server.register(stream("1", unique("Prices")))
	for range 20 {
			c := app(t, b, "b", "agm")
			c.knows(server, "1")
			request := c.send(subscribing(server, "1", nil))
			if _, ok := server.find(0, 5e9, frame{"type": "add-interest", "caller_id": c.me}); !ok {
				got, ok := c.find(0, 20e9, frame{"request_id": request})
				t.Log(c.me, got, ok)
				if ok { t.Log(c.nth(got)) }
				t.FailNow()
			}
	}
}
