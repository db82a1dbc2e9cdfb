"""`voice-dpki device attach`: a ledger, a gateway and a device on one machine, and what each proves."""
