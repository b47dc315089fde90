package byoc;

import java.util.List;
import java.util.Set;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/** The table of routes: nothing else is answered. */
enum Route {
    PING("GET, HEAD", "/ping", Group.ALWAYS),
    EXECUTION_PARAMETERS("GET", "/execution-parameters", Group.ALWAYS),
    INVOCATIONS("POST", "/invocations", Group.ONE_MODEL),
    LIST_MODELS("GET", "/models", Group.SEVERAL_MODELS),
    LOAD_MODEL("POST", "/models", Group.SEVERAL_MODELS),
    DESCRIBE_MODEL("GET", "/models/(NAME)", Group.SEVERAL_MODELS),
    UNLOAD_MODEL("DELETE", "/models/(NAME)", Group.SEVERAL_MODELS),
    INVOKE_MODEL("POST", "/models/(NAME)/invoke", Group.SEVERAL_MODELS),
    PAGE("GET, HEAD", "/", Group.PAGE),
    INFO("GET, HEAD", "/info", Group.PAGE),
    METRICS("GET, HEAD", "/metrics", Group.PAGE),
    OPENAPI("GET, HEAD", "/openapi\\.json", Group.PAGE);

    /** When a route is served. */
    enum Group { ALWAYS, ONE_MODEL, SEVERAL_MODELS, PAGE }

    final String methods;
    private final Pattern path;
    private final Group group;

    Route(String methods, String path, Group group) {
        this.methods = methods;
        this.path = Pattern.compile(path.replace("NAME", Registration.NAME));
        this.group = group;
    }

    boolean takes(String method) {
        return List.of(methods.split(", ")).contains(method);
    }

    boolean isPrediction() {
        return this == INVOCATIONS || this == INVOKE_MODEL;
    }

    /** Is for people, who come by an address that they know; Prometheus comes by a name of its own network. */
    boolean isForPeople() {
        return group == Group.PAGE && this != METRICS;
    }

    /** The model that the path names, or the only one; null: the path is not this route's. */
    String model(String path, Set<Group> served) {
        Matcher matcher = this.path.matcher(path);
        if (!served.contains(group) || !matcher.matches()) {
            return null;
        }
        return matcher.groupCount() > 0 ? matcher.group(1) : FrontEnd.MODEL;
    }
}
