"""SIP on sipmessage: transactions, dialogs, proxy, SDP; the transport is the shell."""
