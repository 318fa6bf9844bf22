"""What is refused, each rule once; `validate` applies them all and changes nothing."""
