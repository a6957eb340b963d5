"""What services say to one another: identifiers, envelope, messages, topology. Pure; no I/O."""
