package byoc;

import java.util.regex.Pattern;

/**
 * The table of routes: nothing else is answered, or goes on to the model server. What goes on is the path that is
 * written here, never a caller's spelling of it: the model server decodes a path twice.
 */
enum Route {
    PING("/ping", "", "GET", Mode.ANY),
    PING_HEAD("/ping", "", "HEAD", Mode.ANY),
    EXECUTION_PARAMETERS("/execution-parameters", "", "GET", Mode.ANY),
    INVOCATIONS("/invocations", "", "POST", Mode.ONE_MODEL),
    LIST_MODELS("/models", "", "GET", Mode.MANY_MODELS),
    LOAD_MODEL("/models", "", "POST", Mode.MANY_MODELS),
    DESCRIBE_MODEL("/models/", "", "GET", Mode.MANY_MODELS),
    UNLOAD_MODEL("/models/", "", "DELETE", Mode.MANY_MODELS),
    INVOKE_MODEL("/models/", "/invoke", "POST", Mode.MANY_MODELS);

    private enum Mode { ANY, ONE_MODEL, MANY_MODELS }

    static final String NAMES = "1 to 200 of the characters A-Z a-z 0-9 . _ -, the first a letter or a digit";
    // Of characters that mean the same however often they are decoded, and that name one file.
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,199}");

    final String method;
    private final String before; // of the path, what stands before the model's name; without one, all of it
    private final String after;
    private final Mode mode;

    Route(String before, String after, String method, Mode mode) {
        this.before = before;
        this.after = after;
        this.method = method;
        this.mode = mode;
    }

    static boolean isModelName(String name) {
        return NAME.matcher(name).matches();
    }

    /** The model that the path names, "" for a route without one; null: the path is not this route's. */
    String model(String path, boolean multiModel) {
        int end = path.length() - after.length();
        boolean other = mode != Mode.ANY && (mode == Mode.MANY_MODELS) != multiModel;
        if (other || end < before.length() || !path.startsWith(before) || !path.endsWith(after)) {
            return null;
        }
        String name = path.substring(before.length(), end);
        boolean matches = before.endsWith("/") ? isModelName(name) : name.isEmpty();
        return matches ? name : null;
    }

    /** The path as the model server gets it. */
    String path(String model) {
        return before + model + after;
    }
}
