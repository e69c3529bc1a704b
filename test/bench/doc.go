// Package bench measures Weft beside raw nats.go: every benchmark alternates
// batches of the same work done both ways, against the same server in the same
// run, and reports the time per operation of each and the median ratio. Run it
// with `make bench`; machines are shared and noisy, so read the ratio.
//
// It owns nothing but its servers and connections, which end with each
// benchmark. All traffic is on loopback TCP.
package bench
