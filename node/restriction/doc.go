// Package restriction is the boolean expressions with which gateway clients
// restrict who sees them, their methods and their contexts, such as
//
//	$region == #region && ($desk ? 'fx.*' || $trader)
//
// It owns the grammar and what an expression means. It knows no identities,
// methods or contexts: the caller says who the owner is, whose expression it
// is, and who the other is, who wants to see something of the owner.
//
// # Grammar
//
//	expression = comparison { ( "&&" | "||" ) comparison }
//	comparison = term { ( "==" | "!=" | "?" ) term }
//	term       = "$" name | "#" name | "'" text "'" | number | "(" expression ")"
//	name       = one or more of a-z and A-Z, case-sensitive
//	text       = one or more bytes that are not '; there are no escapes
//	number     = [ "+" | "-" ] digits [ "." digits ], or no digits before the point
//
// White space may stand between all of these. && and || are of equal precedence,
// and all operators take what is on their left first: a || b && c is (a || b) && c.
//
// # Meaning
//
// $name is an attribute of the other identity, #name one of the owner's. An
// attribute that is missing, null or false has no value. The expression holds if
// its value is neither none nor false; 0 and the empty string hold.
//
//	a == b   both have no value, or the same one: a number never equals a string
//	a != b   not a == b
//	a ? b    the string a if the regular expression b matches all of it, else no
//	         value; so it is if a is not a string or b no regular expression
//	a && b   a if that does not hold, else b
//	a || b   a if that holds, else b
//
// Regular expressions are those of package regexp. One that is written in the
// expression and that regexp cannot compile, a look-ahead for example, is an
// error of [Parse]. The empty expression, which is not the one of white space
// alone, holds always.
//
// The meaning is that of the gateway which clients were written for, and a test
// has what that one says about more than 60 expressions. Where that one answers
// with an error when it evaluates, here the comparison has no value; 010 is ten,
// .5 is a half, white space may stand at the end, and 'fx|fx-spot' matches all of
// fx-spot.
//
// # Limits
//
// Expressions come from other processes and other machines. One has at most
// wire.MaxRestrictions bytes, 32 parentheses inside each other, and regular
// expressions that compile to about 2000 instructions together, of which one that
// is an attribute's value has at most 200. A string of more than 1024 bytes matches
// no regular expression. To evaluate one takes microseconds, and about 10 milliseconds at worst.
//
// # Errors and concurrency
//
// Errors are *wire.Error with code bad-payload, or limit for a long text, and say
// at which byte. An [Expression] does not change and may be used by any number of
// goroutines; so may [Compiled]. Nothing is to be closed. To test with it: an
// [Attributes] is a function, which a map gives in one line.
package restriction
