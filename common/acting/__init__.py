"""An actor's work: observe, act, collect unrolls, send them. It never imports learning."""
