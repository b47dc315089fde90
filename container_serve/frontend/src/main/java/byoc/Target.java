package byoc;

/** What a request's method and target name, read once and strictly: nothing is decoded, no dots are resolved. */
final class Target {
    private static final String[] SCHEMES = {"http://", "https://"};

    final String path; // the caller's, as the log shows it
    final String query;
    final boolean valid; // its characters leave no doubt what it names
    Route route; // null: nothing is served there, or not with this method
    String model = "";
    String allowed = ""; // the methods that the path knows, where it has none for this one

    Target(String method, String target, boolean multiModel) {
        String local = local(target);
        int question = local.indexOf('?');
        path = question < 0 ? local : local.substring(0, question);
        query = question < 0 ? "" : local.substring(question + 1);
        valid = isPlain(path) && query.indexOf('#') < 0;
        if (valid) {
            find(method, multiModel);
        }
    }

    private void find(String method, boolean multiModel) {
        // Many clients join a URL and a path so that it ends with a slash.
        String named = path.length() > 1 && path.endsWith("/") ? path.substring(0, path.length() - 1) : path;
        for (Route each : Route.values()) {
            String found = each.model(named, multiModel);
            if (found != null && each.method.equals(method)) {
                route = each;
                model = found;
            } else if (found != null) {
                allowed += (allowed.isEmpty() ? "" : ", ") + each.method;
            }
        }
    }

    /** Without http://HOST:PORT, which a request that was meant for a proxy has before its path. */
    private static String local(String target) {
        for (String scheme : SCHEMES) {
            int path = target.indexOf('/', scheme.length());
            if (target.regionMatches(true, 0, scheme, 0, scheme.length())
                    && path > scheme.length()
                    && isHost(target.substring(scheme.length(), path))) {
                return target.substring(path);
            }
        }
        return target;
    }

    private static boolean isHost(String text) {
        return text.matches("[A-Za-z0-9._-]+(:[0-9]{1,5})?|\\[[0-9A-Fa-f:.]+\\](:[0-9]{1,5})?");
    }

    private static boolean isPlain(String path) {
        char before = 0;
        for (char c : path.toCharArray()) {
            boolean known = c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || "-._~/".indexOf(c) >= 0;
            if (!known || before == '/' && (c == '/' || c == '.')) {
                return false;
            }
            before = c;
        }
        return path.startsWith("/");
    }

    /** The value of the key in the query, where it is a number. */
    int number(String key, int otherwise) {
        for (String pair : query.split("&")) {
            if (pair.startsWith(key + "=")) {
                try {
                    return Integer.parseInt(pair.substring(key.length() + 1));
                } catch (NumberFormatException none) {
                    return otherwise;
                }
            }
        }
        return otherwise;
    }
}
