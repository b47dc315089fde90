package byoc;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.channel.ChannelHandlerContext;
import io.netty.handler.codec.ByteToMessageDecoder;
import io.netty.handler.codec.DecoderResult;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.DefaultLastHttpContent;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.regex.Pattern;

/**
 * Finds where each request begins and ends, before the HTTP decoder does, and passes on only what every reader of
 * HTTP/1.1 reads alike. A request whose end could be seen in two places would hide another one in its body. Anything
 * else is refused with 400 and ends the connection; so does, once it is answered, a request with a body in chunks.
 */
final class Framing extends ByteToMessageDecoder {
    // What the decoder takes: 4 KB for the request line and 8 KB for the headers.
    private static final int HEAD_BYTES = 12 * 1024;
    private static final int SIZE_DIGITS = 8;
    private static final int CRLF = 2;
    private static final Pattern REQUEST_LINE = Pattern.compile("[A-Z]{1,20} [\\x21-\\x7e]+ HTTP/1\\.[01]");
    private static final Pattern HEADER = Pattern.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+:[\\t\\x20-\\x7e\\x80-\\xff]*");
    private static final Pattern HOST = Pattern.compile("([A-Za-z0-9._~%-]*|\\[[0-9A-Fa-f:.%]+\\])(:[0-9]{0,5})?");
    private static final Pattern LENGTH = Pattern.compile("0|[1-9][0-9]{0,17}");

    private enum Part { HEAD, BODY, CHUNK_SIZE, CHUNK, CHUNK_END, LAST_CHUNK, NOTHING }

    private Part part = Part.HEAD;
    private int checked; // bytes of the head that were looked at: whole lines
    private String[] words = {}; // method, target and version of the request, where they were understood
    private boolean isHttp10;
    private String host;
    private String length; // header values; null: there is none
    private String coding;
    private long left; // bytes of the body or chunk that have not come yet

    @Override
    protected void decode(ChannelHandlerContext ctx, ByteBuf in, List<Object> out) {
        if (part == Part.NOTHING) {
            in.skipBytes(in.readableBytes());
            return;
        }
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
            out.add(in.readRetainedSlice(at - in.readerIndex()));
        }
        if (refusal != null) {
            in.skipBytes(in.readableBytes());
            out.add(failed(DecoderResult.failure(refusal)));
            part = Part.NOTHING;
        }
    }

    /** A message that tells the gate to refuse the request, or the rest of its body. */
    private Object failed(DecoderResult result) {
        if (part == Part.HEAD) {
            boolean known = words.length > 0;
            HttpMethod method = HttpMethod.valueOf(known ? words[0] : "UNKNOWN");
            DefaultFullHttpRequest request = new DefaultFullHttpRequest(
                    HttpVersion.HTTP_1_1, method, known ? words[1] : "-", Unpooled.EMPTY_BUFFER);
            request.setDecoderResult(result);
            return request;
        }
        DefaultLastHttpContent content = new DefaultLastHttpContent(Unpooled.EMPTY_BUFFER);
        content.setDecoderResult(result);
        return content;
    }

    /** The number of bytes from `at` on that are understood; 0: more have to come. */
    private int step(ByteBuf in, int at) throws Refusal {
        int there = in.writerIndex() - at;
        switch (part) {
            case HEAD:
                return head(in, at);
            case BODY:
                return content(there, Part.HEAD);
            case CHUNK_SIZE:
                return chunkSize(in, at);
            case CHUNK:
                return content(there, Part.CHUNK_END);
            case CHUNK_END:
                return lineEnd(in, at, Part.CHUNK_SIZE, "a chunk does not end where its size says");
            case LAST_CHUNK:
                return lineEnd(in, at, Part.NOTHING, "trailers after the last chunk are not taken");
            default:
                return 0;
        }
    }

    private int content(int there, Part next) {
        int step = (int) Math.min(left, there);
        left -= step;
        if (left == 0) {
            part = next;
        }
        return step;
    }

    private int lineEnd(ByteBuf in, int at, Part next, String otherwise) throws Refusal {
        int there = in.writerIndex() - at;
        if (there > 0 && in.getByte(at) != '\r' || there > 1 && in.getByte(at + 1) != '\n') {
            throw invalid(otherwise);
        }
        if (there < CRLF) {
            return 0;
        }
        part = next;
        return CRLF;
    }

    private int chunkSize(ByteBuf in, int at) throws Refusal {
        int end = at;
        while (end < in.writerIndex() && Character.digit(in.getByte(end), 16) >= 0) {
            end++;
        }
        if (end == in.writerIndex() && end - at <= SIZE_DIGITS) {
            return 0;
        }
        if (end == at || end - at > SIZE_DIGITS) {
            throw invalid("a chunk begins with its size, up to 8 hexadecimal digits");
        }
        long size = Long.parseLong(in.toString(at, end - at, StandardCharsets.US_ASCII), 16);
        if (size > Integer.MAX_VALUE) {
            throw invalid("a chunk is too large");
        }
        Part next = size == 0 ? Part.LAST_CHUNK : Part.CHUNK;
        int rest = lineEnd(in, end, next, "a chunk's size is followed by CR LF alone, without extensions");
        left = size;
        return rest == 0 ? 0 : end - at + rest;
    }

    private int head(ByteBuf in, int start) throws Refusal {
        if (in.writerIndex() > start && (in.getByte(start) < 'A' || in.getByte(start) > 'Z')) {
            throw invalid("it does not begin with a method");
        }
        while (true) {
            int from = start + checked;
            int feed = in.indexOf(from, Math.min(in.writerIndex(), start + HEAD_BYTES), (byte) '\n');
            if (feed < 0) {
                if (in.writerIndex() - start >= HEAD_BYTES) {
                    throw invalid("its head is larger than " + HEAD_BYTES + " bytes");
                }
                return 0;
            }
            if (feed == from || in.getByte(feed - 1) != '\r') {
                throw invalid("a line of its head does not end with CR LF");
            }
            String line = in.toString(from, feed - 1 - from, StandardCharsets.ISO_8859_1);
            boolean first = checked == 0;
            checked = feed + 1 - start;
            if (first) {
                requestLine(line);
            } else if (line.isEmpty()) {
                int size = checked;
                endHead();
                return size;
            } else {
                header(line);
            }
        }
    }

    private void requestLine(String line) throws Refusal {
        if (!REQUEST_LINE.matcher(line).matches()) {
            throw invalid("its first line is not METHOD /path HTTP/1.1");
        }
        words = line.split(" ");
        isHttp10 = line.endsWith("0");
        host = null;
        length = null;
        coding = null;
    }

    private void header(String line) throws Refusal {
        if (!HEADER.matcher(line).matches()) {
            throw invalid("a line of its head is not Name: value");
        }
        int colon = line.indexOf(':');
        String name = line.substring(0, colon);
        String value = line.substring(colon + 1).trim(); // nothing but spaces and tabs can be trimmed
        if (name.equalsIgnoreCase("Content-Length")) {
            if (length != null || !LENGTH.matcher(value).matches()) {
                throw invalid("Content-Length has to be one number");
            }
            length = value;
        } else if (name.equalsIgnoreCase("Transfer-Encoding")) {
            if (coding != null || !value.equalsIgnoreCase("chunked")) {
                throw invalid("the only Transfer-Encoding that is taken is chunked");
            }
            coding = value;
        } else if (name.equalsIgnoreCase("Host")) {
            if (host != null || !HOST.matcher(value).matches()) {
                throw invalid("Host has to be one name or address, with or without a port");
            }
            host = value;
        } else if (name.regionMatches(true, 0, "Sec-WebSocket-Key", 0, 17) && name.length() > 17) {
            throw invalid("this server speaks no WebSocket"); // the decoder would take 8 bytes for a body
        }
    }

    /** The head is whole: where its body ends follows from it. */
    private void endHead() throws Refusal {
        if (coding != null && length != null) {
            throw invalid("it has both Content-Length and Transfer-Encoding");
        }
        if (host == null && !isHttp10) {
            throw invalid("it has no Host header");
        }
        if (coding != null && isHttp10) {
            throw invalid("HTTP/1.0 has no Transfer-Encoding");
        }
        checked = 0;
        words = new String[0];
        left = length == null ? 0 : Long.parseLong(length);
        if (coding != null) {
            part = Part.CHUNK_SIZE;
        } else if (left > 0) {
            part = Part.BODY;
        }
    }

    private static Refusal invalid(String reason) {
        return new Refusal(400, "BadRequest", "This is not a valid HTTP request: " + reason + ".");
    }
}
