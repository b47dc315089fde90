package byoc;

import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** A request's method and target, read once and strictly: nothing is decoded, no dots are resolved. */
final class Target {
    // Stands before the path of a request that was meant for a proxy.
    private static final Pattern HOST =
            Pattern.compile("(?i:https?)://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?(?=/)");
    private static final Pattern PATH = Pattern.compile("/[A-Za-z0-9._~/-]*");

    final String path; // the caller's, as the log shows it
    private final String query;
    final boolean valid; // its characters leave no doubt what it names
    Route route; // null: nothing is served there, or not with this method
    String model;
    String allowed = ""; // the methods that the path knows, where it has none for this one

    Target(String method, String target, Set<Route.Group> served) {
        Matcher host = HOST.matcher(target);
        String[] parts = (host.lookingAt() ? target.substring(host.end()) : target).split("\\?", 2);
        path = parts[0];
        query = parts.length < 2 ? "" : parts[1];
        valid = PATH.matcher(path).matches() && !path.contains("//") && !path.contains("/.") && !query.contains("#");
        if (valid) {
            find(method, served);
        }
    }

    private void find(String method, Set<Route.Group> served) {
        // Many clients join a URL and a path so that it ends with a slash.
        String named = path.length() > 1 && path.endsWith("/") ? path.substring(0, path.length() - 1) : path;
        for (Route each : Route.values()) {
            String found = each.model(named, served);
            if (found != null && each.takes(method)) {
                route = each;
                model = found;
                return;
            } else if (found != null) {
                allowed += (allowed.isEmpty() ? "" : ", ") + each.methods;
            }
        }
    }

    /** Tells whether the query has the key. */
    boolean asks(String key) {
        return query.matches("(?i)(.*&)?" + key + "([=&].*)?");
    }

    /** The value of the key in the query, where it is a number, as an int that is nearest. */
    int number(String key, int otherwise) {
        Matcher found = Pattern.compile("(^|.*&)" + key + "=(-?[0-9]{1,18})(&.*|$)").matcher(query);
        return found.matches() ? (int) Math.max(-1, Math.min(Integer.MAX_VALUE, Long.parseLong(found.group(2)))) : otherwise;
    }
}
