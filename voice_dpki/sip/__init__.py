"""SIP on sipmessage: transactions, dialogs, proxy, SDP."""
