// Command weft is the one program of Weft: it runs a node, and it looks at and
// works with a fabric from the command line.
//
//	weft demo                        two machines in one process; start here
//	weft up                          run a node; without --nats with a NATS server inside
//	weft status                      how this machine's nodes are, also offline
//	weft env                         print how other NATS clients reach that server
//
//	weft call METHOD [JSON]          call a method and print its result
//	weft serve METHOD --exec CMD     offer a method that runs a command; or --echo
//	weft stream publish STREAM       push each JSON line of the standard input
//	weft stream watch STREAM [JSON]  print what a stream sends
//	weft pub TOPIC [JSON]            publish on a topic
//	weft sub PATTERN                 print what is published
//
//	weft context get NAME [PATH]     print a shared context; also ls and watch
//	weft context set NAME JSON       write one; also update, path, rm and destroy
//	weft channel publish NAME JSON   publish on a channel; also add and rm
//	weft channel join NAME           be on one and print what comes; also watch and get
//	weft channel ls | members        the channels, and who is on them; --watch to follow
//
//	weft nodes | apps | methods      who is here; --watch to follow
//	weft admin provision [REALM]     make a realm's buckets on a NATS cluster
//	weft bench gateway               one load on this gateway and on the reference gateway
//	weft version
//
// # Where NATS is
//
// Every command but up, status, demo, env, admin and version is a short-lived, hidden
// node named cli-<host>-<user>-<random>. It connects to the first of these:
//
//   - --nats URL and the credential flags, or $NATS_URL, $NATS_USER,
//     $NATS_PASSWORD, $NATS_TOKEN, $NATS_CREDS, $NATS_NKEY, $NATS_CA, $NATS_CERT
//     and $NATS_KEY; without credentials, those of this user's server at that
//     URL are found by themselves;
//   - --nats-context NAME or $NATS_CONTEXT, a context of the nats command line;
//     flags and variables as above override what it says;
//   - the server that a "weft up" of this user runs on this machine;
//   - the context that "nats context select" has chosen.
//
// "weft up" joins what the first two name, and otherwise runs its own server.
//
// # Settings
//
// A flag beats its environment variable, that beats the file of --config, and
// that beats the default. The file is YAML whose keys are the names of flags,
// of any command; a key that is no flag is an error.
//
// # Output
//
// Results are on the standard output, everything about them on the standard
// error. With --json each line of the output is one JSON object. Passwords are
// printed by "weft env" alone.
//
// Exit codes: 0 done; 1 the fabric said no, and the standard error has "code:
// sentence" with a code of package wire (with --target all: some server
// failed); 2 wrong usage; 3 timeout.
//
// # Inside
//
// [run] is the whole program with its streams and environment as arguments;
// each command is a struct that kong fills from its flags and whose Run method
// does it. The scripts in testdata run the real program, one topic per file.
package main
