package contexts

// MustExist refuses a write with bad-name where there is no context, or none any
// more when the write's turn comes, instead of creating one.
func MustExist() Option { return func(o *op) { o.mustExist = true } }
