vcl 4.1;

import std;
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

sub vcl_backend_response {
    if (beresp.http.Surrogate-Control !~ "max-age=[0-9]+") {
        # Nothing of a cached route, or not to be kept: the next one may be.
        set beresp.uncacheable = true;
        set beresp.ttl = 120s;
        return (deliver);
    }
    # For as long as the app says, less the age that it had there.
    set beresp.ttl = std.duration(regsub(beresp.http.Surrogate-Control, "^.*max-age=([0-9]+).*$", "\1s"), 0s)
        - beresp.age;
    if (beresp.ttl < 0s) {
        # Stale there already: the window begins now.
        set beresp.ttl = 0s;
    }
    set beresp.grace = 0s;
    if (beresp.http.Surrogate-Control ~ "stale-while-revalidate=[0-9]+") {
        set beresp.grace =
            std.duration(regsub(beresp.http.Surrogate-Control, "^.*stale-while-revalidate=([0-9]+).*$", "\1s"), 0s);
    }
    # To be validated by its ETag after that.
    set beresp.keep = 1h;
    return (deliver);
}

sub vcl_deliver {
    # Between the app and this Varnish alone.
    unset resp.http.xkey;
    unset resp.http.Surrogate-Key;
    unset resp.http.Surrogate-Control;
    unset resp.http.Cache-Tag;
}
