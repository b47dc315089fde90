package byoc;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.ByteToMessageDecoder;
import io.netty.handler.codec.DecoderResult;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.DefaultLastHttpContent;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpObject;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.ScheduledFuture;
import java.util.concurrent.TimeUnit;
import java.util.regex.Pattern;

/**
 * Finds where each request begins and ends, before the HTTP decoder does, and passes on only what every reader of
 * HTTP/1.1 reads alike. A request whose end could be seen in two places would hide another one in its body. Anything
 * else is refused with 400 and ends the connection; so does, once it is answered, a request with a body in chunks. A
 * head that does not come to its end in time is refused with 408, and a client that says nothing at all is left.
 */
final class Framing extends ByteToMessageDecoder {
    // What the decoder takes: 4 KB for the request line and 8 KB for the headers.
    private static final int HEAD_BYTES = 12 * 1024;
    private static final int CHUNK_LINE_BYTES = 10; // a size of 8 digits
    private static final Pattern REQUEST_LINE = Pattern.compile("[A-Z]{1,20} [\\x21-\\x7e]+ HTTP/1\\.[01]");
    private static final Pattern HEADER = Pattern.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\\t\\x20-\\x7e\\x80-\\xff]*");
    private static final Pattern CHUNK_SIZE = Pattern.compile("[0-7]?[0-9A-Fa-f]{1,7}");
    // Headers that may stand there once, and what they may say.
    private static final Map<String, Pattern> ONCE = Map.of(
            "content-length", Pattern.compile("0|[1-9][0-9]{0,17}"),
            "transfer-encoding", Pattern.compile("(?i)chunked"),
            "host", Pattern.compile("([A-Za-z0-9._~%-]*|\\[[0-9A-Fa-f:.%]+\\])(:[0-9]{0,5})?"));

    private enum Part { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, LAST_CHUNK, NOTHING }

    private final int seconds; // for a head
    private final Map<String, String> once = new HashMap<>(); // the values of those headers
    private Part part = Part.HEAD;
    private int checked; // bytes of the head that were looked at: whole lines
    private String requestLine = ""; // where it was understood
    private long left; // bytes of the body or chunk that have not come yet
    private boolean spoken;
    private ScheduledFuture<?> timer;

    Framing(int seconds) {
        this.seconds = seconds;
    }

    @Override
    public void channelActive(ChannelHandlerContext ctx) {
        waitForHead(ctx);
        ctx.fireChannelActive();
    }

    @Override
    protected void decode(ChannelHandlerContext ctx, ByteBuf in, List<Object> out) {
        spoken = true;
        int at = in.readerIndex();
        Refusal refusal = null;
        try {
            for (int step = step(in, at); step > 0; step = step(in, at)) {
                at += step;
            }
        } catch (Refusal wrong) {
            refusal = wrong;
        }
        if (at > in.readerIndex()) {
            stop();
            out.add(in.readRetainedSlice(at - in.readerIndex()));
        }
        if (refusal != null) {
            out.add(failed(refusal));
        }
        if (part == Part.NOTHING) {
            in.skipBytes(in.readableBytes());
        } else if (part == Part.HEAD && in.isReadable()) {
            waitForHead(ctx);
        }
    }

    private void waitForHead(ChannelHandlerContext ctx) {
        if (timer == null) {
            timer = ctx.executor().schedule(() -> giveUp(ctx), seconds, TimeUnit.SECONDS);
        }
    }

    private void giveUp(ChannelHandlerContext ctx) {
        timer = null;
        if (!spoken) {
            ctx.close();
        } else if (!ctx.channel().config().isAutoRead()) { // the request before it is not answered yet
            waitForHead(ctx);
        } else if (part == Part.HEAD) {
            ctx.fireChannelRead(failed(new Refusal(
                    408, "RequestTimeout", "The request's head did not arrive within " + seconds + " s.")));
        }
    }

    private void stop() {
        if (timer != null) {
            timer.cancel(false);
            timer = null;
        }
    }

    @Override
    protected void handlerRemoved0(ChannelHandlerContext ctx) {
        stop();
    }

    /** A message that tells the filter to refuse the request, or the rest of its body. Nothing is read after it. */
    private HttpObject failed(Refusal refusal) {
        stop();
        HttpObject message = new DefaultLastHttpContent(Unpooled.EMPTY_BUFFER);
        if (part == Part.HEAD) {
            String[] words = requestLine.isEmpty() ? new String[] {"UNKNOWN", "-"} : requestLine.split(" ");
            message = new DefaultFullHttpRequest(
                    HttpVersion.HTTP_1_1, HttpMethod.valueOf(words[0]), words[1], Unpooled.EMPTY_BUFFER);
        }
        message.setDecoderResult(DecoderResult.failure(refusal));
        part = Part.NOTHING;
        return message;
    }

    /** The number of bytes from `at` on that are understood; 0: more have to come. */
    private int step(ByteBuf in, int at) throws Refusal {
        switch (part) {
            case HEAD:
                return head(in, at);
            case BODY:
                return content(in, at, Part.HEAD);
            case CHUNK_SIZE:
                return chunkSize(in, at);
            case CHUNK:
                return content(in, at, Part.CHUNK_END);
            case CHUNK_END:
                return empty(in, at, Part.CHUNK_SIZE, "a chunk does not end where its size says");
            case LAST_CHUNK:
                return empty(in, at, Part.NOTHING, "trailers after the last chunk are not taken");
            default:
                return 0;
        }
    }

    private int content(ByteBuf in, int at, Part next) {
        int step = (int) Math.min(left, in.writerIndex() - at);
        left -= step;
        if (left == 0) {
            part = next;
        }
        return step;
    }

    /** The line that begins at `at`, without its CR LF, if it is there; `otherwise` says what is wrong with another one. */
    private static String line(ByteBuf in, int at, int most, String otherwise) throws Refusal {
        int end = Math.min(in.writerIndex(), at + most);
        int feed = in.indexOf(at, end, (byte) '\n');
        if (feed == at || feed > at && in.getByte(feed - 1) != '\r' || feed < 0 && end == at + most) {
            throw invalid(otherwise);
        }
        return feed < 0 ? null : in.toString(at, feed - 1 - at, StandardCharsets.ISO_8859_1);
    }

    private int empty(ByteBuf in, int at, Part next, String otherwise) throws Refusal {
        if (line(in, at, 2, otherwise) == null) {
            return 0;
        }
        part = next;
        return 2;
    }

    private int chunkSize(ByteBuf in, int at) throws Refusal {
        String expected = "a chunk begins with its size, up to 7fffffff, and CR LF, without extensions";
        String line = line(in, at, CHUNK_LINE_BYTES, expected);
        if (line == null) {
            return 0;
        }
        if (!CHUNK_SIZE.matcher(line).matches()) {
            throw invalid(expected);
        }
        left = Long.parseLong(line, 16);
        part = left == 0 ? Part.LAST_CHUNK : Part.CHUNK;
        return line.length() + 2;
    }

    private int head(ByteBuf in, int start) throws Refusal {
        if (in.writerIndex() > start && (in.getByte(start) < 'A' || in.getByte(start) > 'Z')) {
            throw invalid("it does not begin with a method");
        }
        while (true) {
            int from = start + checked;
            String line = line(in, from, HEAD_BYTES - checked,
                    "a line of its head does not end with CR LF, or its head is larger than " + HEAD_BYTES + " bytes");
            if (line == null) {
                return 0;
            }
            boolean first = checked == 0;
            checked += line.length() + 2;
            if (first) {
                requestLine(line);
            } else if (!line.isEmpty()) {
                header(line);
            } else {
                int size = checked;
                endHead();
                return size;
            }
        }
    }

    private void requestLine(String line) throws Refusal {
        if (!REQUEST_LINE.matcher(line).matches()) {
            throw invalid("its first line is not METHOD /path HTTP/1.1");
        }
        requestLine = line;
        once.clear();
    }

    private void header(String line) throws Refusal {
        if (!HEADER.matcher(line).matches()) {
            throw invalid("a line of its head is not Name: value");
        }
        int colon = line.indexOf(':');
        String name = line.substring(0, colon).toLowerCase(Locale.ROOT);
        String value = line.substring(colon + 1).trim(); // nothing but spaces and tabs can be trimmed
        Pattern allowed = ONCE.get(name);
        if (allowed != null && (!allowed.matcher(value).matches() || once.put(name, value) != null)) {
            throw invalid("there may be one Content-Length with a number, one Transfer-Encoding: chunked, and one Host"
                    + " with a name or address and maybe a port");
        }
        if (name.startsWith("sec-websocket-key") && name.length() > 17) {
            throw invalid("this server speaks no WebSocket"); // the decoder would take 8 bytes for a body
        }
    }

    /** The head is whole: where its body ends follows from it. */
    private void endHead() throws Refusal {
        boolean isHttp10 = requestLine.endsWith("0");
        boolean isChunked = once.containsKey("transfer-encoding");
        if (isChunked && (isHttp10 || once.containsKey("content-length"))) {
            throw invalid("Transfer-Encoding is for HTTP/1.1, and without Content-Length");
        }
        if (!isHttp10 && !once.containsKey("host")) {
            throw invalid("it has no Host header");
        }
        checked = 0;
        requestLine = "";
        left = Long.parseLong(once.getOrDefault("content-length", "0"));
        if (isChunked || left > 0) {
            part = isChunked ? Part.CHUNK_SIZE : Part.BODY;
        }
    }

    private static Refusal invalid(String reason) {
        return new Refusal(400, "BadRequest", "This is not a valid HTTP request: " + reason + ".");
    }
}
