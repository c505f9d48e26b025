vcl 4.1;

import xkey;

backend default {
    .host = "127.0.0.1";
    .port = "8000";
}

# The replicas of the app: they alone may purge.
acl purgers {
    "127.0.0.1";
    "::1";
}

sub vcl_recv {
    if (req.method == "PURGE") {
        unset req.http.x-purged;
        if (client.ip !~ purgers) {
            return (synth(403, "Not from here"));
        }
        if (req.http.xkey-everything) {
            # Only obj.* is named, so that the ban lurker can work it off.
            ban("obj.status != 0");
            set req.http.x-purged = "everything";
        } else if (req.http.xkey-purge) {
            set req.http.x-purged = xkey.purge(req.http.xkey-purge);
        } else if (req.http.xkey-softpurge) {
            set req.http.x-purged = xkey.softpurge(req.http.xkey-softpurge);
        } else {
            return (synth(400, "Nothing named"));
        }
        return (synth(200, "Purged"));
    }
}

sub vcl_synth {
    if (req.method == "PURGE" && req.http.x-purged) {
        # Tells the purger that it was this piece of VCL that answered, not the app behind it.
        set resp.http.xkey-purged = req.http.x-purged;
        return (deliver);
    }
}
