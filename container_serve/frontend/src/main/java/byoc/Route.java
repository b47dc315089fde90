package byoc;

import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The table of routes: nothing else is answered. */
enum Route {
    PING("GET", "/ping", null),
    PING_HEAD("HEAD", "/ping", null),
    EXECUTION_PARAMETERS("GET", "/execution-parameters", null),
    INVOCATIONS("POST", "/invocations", false),
    LIST_MODELS("GET", "/models", true),
    LOAD_MODEL("POST", "/models", true),
    DESCRIBE_MODEL("GET", "/models/(NAME)", true),
    UNLOAD_MODEL("DELETE", "/models/(NAME)", true),
    INVOKE_MODEL("POST", "/models/(NAME)/invoke", true);

    final String method;
    private final Pattern path;
    private final Boolean multiModel; // whether there have to be several models; null: it does not matter

    Route(String method, String path, Boolean multiModel) {
        this.method = method;
        this.path = Pattern.compile(path.replace("NAME", Registration.NAME));
        this.multiModel = multiModel;
    }

    /** The model that the path names, "" for a route without one; null: the path is not this route's. */
    String model(String path, boolean multiModel) {
        Matcher matcher = this.path.matcher(path);
        if (!matcher.matches() || this.multiModel != null && this.multiModel != multiModel) {
            return null;
        }
        return matcher.groupCount() > 0 ? matcher.group(1) : "";
    }
}
