#!/bin/sh
# Adds two numbers: reads {"a":1,"b":2} on its standard input and prints
# {"sum":3}. To try it: weft serve Add --exec examples/add.sh
awk '
	{ text = text $0 }
	function number(name) {
		if (!match(text, "\"" name "\"[ \t]*:[ \t]*-?[0-9][0-9.eE+-]*")) {
			print "add.sh: the arguments need a number \"" name "\"" > "/dev/stderr"
			failed = 1
			exit 1
		}
		value = substr(text, RSTART, RLENGTH)
		sub(/^[^:]*:/, "", value)
		return value + 0
	}
	END {
		if (failed) exit 1
		sum = number("a") + number("b")
		if (!failed) printf "{\"sum\":%.15g}\n", sum
		exit failed
	}
'
