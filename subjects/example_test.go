package subjects_test

import (
	"fmt"
	"strings"

	"github.com/weft-fabric/weft/subjects"
)

func ExampleEncode() {
	for _, name := range []string{"GetPortfolio", "T42.Demo", "Zürich", "*", "", strings.Repeat("a", 97)} {
		token, err := subjects.Encode(name)
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Println(token, token.Hashed())
	}
	_, err := subjects.Encode("\xff")
	fmt.Println(err)
	// Output:
	// GetPortfolio false
	// T42=2EDemo false
	// Z=C3=BCrich false
	// =2A false
	// = false
	// =hfiwgb7uwv6wjcuouxwjs7w2fxy true
	// bad name "\xff": not valid UTF-8
}

func ExampleRealm_CallSubject() {
	realm := subjects.RealmFor(`CORP\Ann`)
	to := subjects.NodeFor("DESK-7.corp.example", "ann")
	app := subjects.NewApp("x7f3", 12)
	s := realm.CallSubject(to, "desk-9-ann", app, subjects.MustEncode("T42.Demo"))
	fmt.Println(s)

	call, err := subjects.ParseCall(string(s))
	name, _ := call.Method.Name()
	fmt.Println(call.From, call.App, name, err)
	// Output:
	// weft.corp-ann.call.desk-7-ann.desk-9-ann.x7f3-12.T42=2EDemo
	// desk-9-ann x7f3-12 T42.Demo <nil>
}

func ExampleContextPath() {
	ctx := subjects.MustEncode("___channel___Red")
	key, covered := subjects.ContextPath(ctx, []string{"data", "fdc3.instrument"})
	fmt.Println(key, covered)
	// Output: ___channel___Red.data.fdc3=2Einstrument 2
}
