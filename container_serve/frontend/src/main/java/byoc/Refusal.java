package byoc;

import io.netty.handler.codec.http.FullHttpResponse;

/** A request that is refused; the message says what is wrong with it. */
final class Refusal extends Exception {
    private static final long serialVersionUID = 1L;

    private final int status;
    private final String type;

    Refusal(int status, String type, String message) {
        super(message, null, false, false);
        this.status = status;
        this.type = type;
    }

    FullHttpResponse answer() {
        return Answers.error(status, type, getMessage());
    }
}
