"""An actor's work: observe, act, collect unrolls, push them. It never imports learning."""
