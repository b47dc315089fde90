package byoc;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertSame;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.Unpooled;
import io.netty.handler.codec.http.DefaultFullHttpRequest;
import io.netty.handler.codec.http.FullHttpRequest;
import io.netty.handler.codec.http.FullHttpResponse;
import io.netty.handler.codec.http.HttpMethod;
import io.netty.handler.codec.http.HttpVersion;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.Test;

final class RequestQueueTest {
    private static final long SECOND = 1_000_000_000L;
    private static final long MEGABYTE = 1 << 20;

    private final List<FullHttpResponse> answers = new ArrayList<>();
    private final Memory memory = new Memory(100 * MEGABYTE, MEGABYTE);
    private final RequestQueue queue = new RequestQueue(3, memory);

    private PendingRequest request(double seconds, int bytes) {
        FullHttpRequest request = new DefaultFullHttpRequest(
                HttpVersion.HTTP_1_1, HttpMethod.POST, "/invocations", Unpooled.buffer(bytes).writeZero(bytes));
        request.headers().set("Content-Type", "image/jpeg");
        return new PendingRequest("7", request, System.nanoTime() + (long) (seconds * SECOND), answers::add);
    }

    private PendingRequest offered(double seconds) {
        PendingRequest request = request(seconds, 1);
        assertTrue(queue.offer(request));
        return request;
    }

    @Test
    void placesAreTakenAndGivenBackOnce() throws InterruptedException {
        int before = Health.QUEUED.get();
        PendingRequest first = offered(10);
        PendingRequest second = offered(10);
        assertSame(first, queue.take());
        offered(10);
        assertFalse(queue.offer(request(10, 1)), "one is with a worker, two wait");
        queue.remove(second);
        queue.remove(second);
        queue.done(first, SECOND);
        offered(10);
        assertEquals(2 + before, Health.QUEUED.get());
        queue.close();
        assertEquals(before, Health.QUEUED.get());
        assertFalse(queue.offer(request(10, 1)), "its model has gone");
    }

    @Test
    void aRequestWhoseCallerIsGoneIsNotComputed() throws InterruptedException {
        PendingRequest gone = offered(10);
        PendingRequest next = offered(10);
        gone.abandon(); // before it is taken out: whoever takes it sees that
        assertSame(next, queue.take());
        assertFalse(gone.isTaken());
        assertTrue(next.isTaken());
    }

    @Test
    void theOldestThatCanBeAnsweredInTimeComesFirstElseTheYoungest() throws InterruptedException {
        PendingRequest measured = offered(10);
        queue.done(queue.take(), SECOND); // so long does one take
        assertTrue(measured.isTaken());
        PendingRequest late = offered(0.5);
        PendingRequest inTime = offered(5);
        assertSame(inTime, queue.take());
        PendingRequest youngest = offered(1);
        assertSame(youngest, queue.take());
        queue.done(youngest, 0);
        assertSame(late, queue.take());
    }

    @Test
    void aBodyWaitsUntilThereIsMemoryForItsCopies() throws Exception {
        PendingRequest large = request(60, (int) MEGABYTE); // larger than the share: it goes alone
        PendingRequest other = request(60, 10_000);
        queue.offer(large);
        queue.offer(other);
        assertSame(large, queue.take());
        CompletableFuture<PendingRequest> next = CompletableFuture.supplyAsync(() -> {
            try {
                return queue.take();
            } catch (InterruptedException error) {
                throw new IllegalStateException(error);
            }
        });
        assertFalse(next.isDone());
        assertFalse(other.isTaken());
        queue.done(large, SECOND);
        assertSame(other, next.get(30, TimeUnit.SECONDS));
    }

    @Test
    void aWorkerThatEndsWhileItWaitsForMemoryPutsTheRequestBack() throws Exception {
        PendingRequest large = request(60, (int) MEGABYTE);
        PendingRequest other = request(60, 10_000);
        queue.offer(large);
        queue.offer(other);
        queue.take();
        CompletableFuture<Boolean> interrupted = new CompletableFuture<>();
        Thread worker = new Thread(() -> {
            try {
                queue.take();
                interrupted.complete(false);
            } catch (InterruptedException end) {
                interrupted.complete(true);
            }
        });
        worker.start();
        worker.interrupt();
        assertTrue(interrupted.get(30, TimeUnit.SECONDS));
        queue.done(large, 0);
        assertSame(other, queue.take());
    }

    @Test
    void aRequestIsWrittenAsTheWorkersReadItAndItsBodyIsGivenUp() {
        FullHttpRequest http = new DefaultFullHttpRequest(
                HttpVersion.HTTP_1_1,
                HttpMethod.POST,
                "/invocations",
                Unpooled.wrappedBuffer(Unpooled.buffer().writeByte(1), Unpooled.buffer().writeByte(2)));
        http.headers().set("Content-Type", "image/png");
        PendingRequest request = new PendingRequest("id", http, 0, answers::add);
        ByteBuf out = Unpooled.wrappedBuffer(request.encode(Unpooled.buffer().alloc()).toArray(new ByteBuf[0]));
        assertEquals('I', out.readByte());
        for (String text : new String[] {"id", "Content-Type", "image/png"}) {
            assertEquals(text, text(out));
        }
        assertEquals(-1, out.readInt());
        assertEquals("body", text(out));
        assertEquals("image/png", text(out));
        assertEquals(2, out.readInt());
        assertEquals(0x0102, out.readShort());
        assertEquals(-1, out.readInt());
        assertEquals(-1, out.readInt());
        assertFalse(out.isReadable());
        out.release();
        assertEquals(0, http.refCnt());
    }

    private static String text(ByteBuf in) {
        return in.readCharSequence(in.readInt(), java.nio.charset.StandardCharsets.UTF_8).toString();
    }

    @Test
    void aFailureIsAnAnswerInJson() {
        request(1, 1).fail(503, "gone");
        assertEquals(503, answers.get(0).status().code());
        String body = answers.get(0).content().toString(java.nio.charset.StandardCharsets.UTF_8).trim();
        assertEquals("{\"code\":503,\"type\":\"ServiceUnavailable\",\"message\":\"gone\"}", body);
    }
}
